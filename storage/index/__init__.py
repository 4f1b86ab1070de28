"""Searching vectors: the sidecars of a segment, its graph, exact search, and which of these is faster."""
