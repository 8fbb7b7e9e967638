"""Comparison: two networks, several runs of each, and the verdict."""
