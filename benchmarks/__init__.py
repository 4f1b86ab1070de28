"""Benchmarks; each is a program that prints a table. CONTRIBUTING.md says how to run them."""
