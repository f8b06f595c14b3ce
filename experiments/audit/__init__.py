"""An empirical audit of a run: planted patients, an attacker, and what a promise would forbid."""
