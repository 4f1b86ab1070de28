"""Wrappers that come with the package, found by their names; `encoder/wrappers.py` says what a wrapper is."""
