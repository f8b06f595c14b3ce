"""Code systems: diagnoses, procedures and units in groups, and the risk score made of diagnoses."""
