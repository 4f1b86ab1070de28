"""A hosted provider of embeddings, played on loopback: `with Endpoint() as endpoint: ...` is all that a test needs.

`vectors` says what it answers with, `forms` how each provider writes it down, `acts` what may go wrong, and `server`
speaks HTTP. `python -m tests.endpoint` runs it as a process of its own.
"""

from tests.endpoint.server import Endpoint, Request
from tests.endpoint.vectors import text_of, vector_of, vectors_of

__all__ = ["Endpoint", "Request", "text_of", "vector_of", "vectors_of"]
