"""Measures, each printed as a table by a program of its own. CONTRIBUTING.md says how to run them."""
