"""A question becomes rows: search, the rows that it may find, and how good an index is."""
