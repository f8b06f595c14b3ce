"""What is learned from contract tables, how privately, and how good it is."""
