"""What an experiment would cost and give, before any data are touched."""
