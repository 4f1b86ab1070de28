"""Embedding tables: the catalog, builds, changes, and recovery after a crash."""
