"""Filters: parses a condition that a user wrote, checks every part of it, and writes it back as SQL."""
