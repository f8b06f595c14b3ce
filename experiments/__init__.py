"""Which questions are asked, with which settings, and how the answers are shown."""
