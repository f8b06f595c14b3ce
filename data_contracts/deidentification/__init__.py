"""The de-identification gate: it sees every table before anything else reads a row."""
