"""Search: from a question to rows, with filters, and the check of an index."""
