"""Sweep: many runs, their ledger, and search under a budget."""
