"""Loaders that turn public data sets into a federation of sites."""
