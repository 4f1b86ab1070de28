"""Vectors in a column of the user's own table on a database server: PostgreSQL with pgvector, or CockroachDB.

Only who names a server needs psycopg, the extra `postgres`; so nothing of this package is imported before.
"""
