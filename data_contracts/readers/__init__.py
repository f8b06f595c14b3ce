"""Readers: raw files become lazy frames; nothing is cleaned, guessed or renamed here."""
