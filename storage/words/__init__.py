"""Full-text search: which words a text has, a file that lists them for a segment, and BM25 over several of these."""
