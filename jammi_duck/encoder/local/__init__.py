"""A local model at work: its files, its tokens, and its forward passes with torch."""
