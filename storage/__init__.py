"""Durable state: the files of a location, and the catalog that speaks of them."""
