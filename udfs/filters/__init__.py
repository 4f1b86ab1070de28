"""Filters: a condition that a user wrote is taken apart, checked, and put together again."""
