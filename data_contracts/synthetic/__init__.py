"""The synthetic network: a federation whose truth is known."""
