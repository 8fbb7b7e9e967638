"""Damage done to run folders and processes, and what sepnet makes of it."""
