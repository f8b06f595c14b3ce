"""OMOP CDM 5.3 and 5.4 extracts: files become tables, and tables become events and outcomes."""
