"""Embedding tables: the catalog, builds, changes, and what becomes of those that were cut short."""
