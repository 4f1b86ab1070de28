"""What the HTTP side can do, as an OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jammi_duck.doors.server.codes import words_for
from jammi_duck.doors.server.http_requests import MOST_DIMENSIONS, MOST_ROWS, MOST_TEXTS
from jammi_duck.version import __version__

_ABOUT = (
    "Embeds text, and searches what was embedded in a DuckDB file. Other SQL is served by Arrow Flight SQL. "
    'An error has the form `{"error": text, "code": word}`, except in `/v1/embeddings`, where OpenAI\'s clients '
    'read `{"error": {"message", "type", "param", "code"}}`.'
)
_WORDS = {
    400: "The request is wrong, or its result is larger than a limit of the server. The text says what to change.",
    401: "There is no token, or a wrong one.",
    403: "The server does not do that for this token, or for any.",
    404: "There is no such source, embedding table or model.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body is not sent as JSON.",
    429: "The server has too much to do. Try again after the seconds in `Retry-After`.",
    500: "The server has failed; its log tells more.",
    503: "The server is ending, or cannot read the files of an embedding table.",
    504: "It took longer than `[server] query_timeout`.",
}
_OF_SEARCH = (400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504)
_OF_EMBEDDINGS = (400, 401, 404, 408, 413, 415, 429, 500, 503, 504)


def _text(about: str, **more: object) -> dict[str, Any]:
    return {"type": "string", "description": about, **more}


def _number(about: str, **more: object) -> dict[str, Any]:
    return {"type": "number", "description": about, **more}


def _whole(about: str, **more: object) -> dict[str, Any]:
    return {"type": "integer", "description": about, **more}


def _object(properties: Mapping[str, Any], *required: str, closed: bool = True) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": dict(properties), "required": list(required)}
    return {**schema, "additionalProperties": False} if closed else schema


_INPUT = {
    "description": (
        f"The text, or up to {MOST_TEXTS:,} texts, none of them blank. Tokens are not taken: they would be those of "
        "another model. A single text shares a pass of the model with those of other callers."
    ),
    "oneOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MOST_TEXTS},
    ],
}
_EMBEDDINGS_REQUEST = _object(
    {
        "input": _INPUT,
        "model": _text("A model that the server has; its default model where none is named."),
        "encoding_format": _text(
            "How a vector is sent: a list of numbers, or the base64 of little-endian float32.",
            enum=["float", "base64"],
            default="float",
        ),
        "dimensions": _whole("Only so many of the first dimensions, scaled to length 1 again.", minimum=1),
        "input_type": _text(
            "Whether the texts are questions or what is searched, which some models embed differently. OpenAI's API "
            "has no such key.",
            enum=["document", "query"],
            default="document",
        ),
        "user": _text("Taken as OpenAI's clients send it, and not used."),
    },
    "input",
)
_QUERY = {
    "description": "A text, or a vector with as many numbers as the embedding table's have.",
    "oneOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": MOST_DIMENSIONS},
    ],
}
_SEARCH_REQUEST = _object(
    {
        "source": _text("The table, view or file that was embedded, by its name in SQL."),
        "query": _QUERY,
        "k": _whole("How many rows, at most.", minimum=1, maximum=MOST_ROWS, default=10),
        "filter": _text("A condition in SQL over the columns of the source; only rows that meet it are ranked."),
        "parameters": {
            "type": "object",
            "description": (
                "Values for the parameters of the filter, such as `$center`. They never become SQL: what a user has "
                "typed belongs here."
            ),
        },
        "mode": _text("What finds rows.", enum=["auto", "hybrid", "text", "vector"], default="auto"),
        "weight": _number("The share of the vectors in a hybrid search.", minimum=0, maximum=1, default=0.7),
        "fusion": _text(
            "How a hybrid search combines vectors and words: by their scores, or by reciprocal ranks.",
            enum=["weighted", "rrf"],
            default="weighted",
        ),
        "k1": _number("How much it counts for BM25 that a word occurs often in a row.", default=1.2),
        "b": _number("How little a word in a long text counts for BM25.", default=0.75),
        "min_similarity": _number("Leaves out rows with a smaller similarity."),
        "embedding_table": _text("The embedding table to search; by default, the newest of the source."),
        "column": _text("Which of several embeddings of the source: its label, or the column that it is of."),
        "model": _text("Searches the newest embedding table of this model."),
        "exact": {"type": "boolean", "description": "Compares with every vector.", "default": False},
        "rerank": _text("A re-ranker, which reads the query with each of the first rows and ranks them anew."),
        "rerank_k": _whole("How many rows the re-ranker reads.", minimum=1, maximum=MOST_ROWS, default=50),
        "per_row": _whole(
            "How many passages of each row are returned, of a table of passages.",
            minimum=1,
            maximum=MOST_ROWS,
            default=1,
        ),
        "columns": {
            "type": "array",
            "items": {"type": "string"},
            "description": (
                "The columns of the source to return; by default, all of them. Of a table of passages, `_passage`, "
                "`_start`, `_end` and `_passage_text` must be named, too, where columns are named."
            ),
        },
    },
    "source",
    "query",
)
_EMBEDDINGS_RESPONSE = _object(
    {
        "object": {"const": "list"},
        "data": {
            "type": "array",
            "items": _object(
                {
                    "object": {"const": "embedding"},
                    "index": _whole("Of the text in `input`."),
                    "embedding": {
                        "description": "The vector, of length 1.",
                        "oneOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string"}],
                    },
                },
                "object",
                "index",
                "embedding",
            ),
        },
        "model": _text("The model, as it was named."),
        "usage": {
            "type": "object",
            "description": "`prompt_tokens` and `total_tokens`, which are 0: tokens are not counted.",
        },
    },
    "object",
    "data",
    "model",
    "usage",
)
_ROW = {
    "type": "object",
    "description": (
        "The columns of the source, and `_row_id`, `_rank`, `_score`, `_similarity`, `_distance`, `_bm25`, and "
        "`_rerank` after a re-ranking; of a table of passages, `_passage`, `_start`, `_end` and `_passage_text`. "
        "Dates are ISO 8601, BLOB is base64, decimals are texts, a MAP is a list of pairs, and NaN is null."
    ),
}
_SEARCH_RESPONSE = _object(
    {"rows": {"type": "array", "items": _ROW}, "seconds": _number("How long the search took.")}, "rows", "seconds"
)
_EMBEDDINGS_EXAMPLE = {"model": "all-MiniLM-L6-v2", "input": ["a duck swims", "a fish lives in water"]}
_EMBEDDINGS_ANSWER = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.0182, -0.0411]}],
    "model": "all-MiniLM-L6-v2",
    "usage": {"prompt_tokens": 0, "total_tokens": 0},
}
_SEARCH_EXAMPLE = {
    "source": "patents",
    "query": "membrane that cleans water",
    "k": 1,
    "filter": "center = $center",
    "parameters": {"center": "ARC"},
    "columns": ["id", "title"],
}
_SEARCH_ANSWER = {
    "rows": [
        {
            "id": 14048,
            "title": "Water filter",
            "_row_id": "14048",
            "_rank": 1,
            "_score": 0.71,
            "_similarity": 0.63,
            "_distance": 0.37,
            "_bm25": 8.2,
        }
    ],
    "seconds": 0.004,
}
_FLAT_ERROR = _object({"error": _text("What is wrong, and what to do."), "code": _text("A word for programs.")})
_OPENAI_ERROR = _object(
    {
        "error": _object(
            {
                "message": _text("What is wrong, and what to do."),
                "type": _text("`invalid_request_error` or `server_error`."),
                "param": {"type": "null"},
                "code": _text("A word for programs."),
            }
        )
    }
)


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "jammi-duck", "version": __version__, "description": _ABOUT},
        "paths": {
            "/v1/search": {
                "post": _posting(
                    "search",
                    "Search a source",
                    "Finds the rows of a source that answer a query best, best first, as `jammi_search` does in SQL.",
                    ("SearchRequest", _SEARCH_EXAMPLE),
                    ("SearchResponse", _SEARCH_ANSWER),
                    _OF_SEARCH,
                    "Error",
                )
            },
            "/v1/embeddings": {
                "post": _posting(
                    "embeddings",
                    "Embed text",
                    "Gives the vectors of texts, as OpenAI's API of this name does, so that its clients work with the "
                    "base URL `http://HOST:PORT/v1`. They equal those of `embed` in SQL.",
                    ("EmbeddingsRequest", _EMBEDDINGS_EXAMPLE),
                    ("EmbeddingsResponse", _EMBEDDINGS_ANSWER),
                    _OF_EMBEDDINGS,
                    "OpenAIError",
                )
            },
            "/healthz": {
                "get": _getting(
                    "healthz",
                    "Whether the process runs",
                    "Needs no token, and asks nothing of the database.",
                    {"status": "ok", "version": __version__},
                )
            },
            "/readyz": {
                "get": _getting(
                    "readyz",
                    "Whether the server answers queries",
                    "Runs a short query, and a model that was loaded at the start. Needs no token.",
                    {"status": "ready"},
                    {
                        "503": _answer(
                            "Send queries to another server.", {"status": "not_ready", "detail": "no answer within 2 s"}
                        )
                    },
                )
            },
            "/metrics": {
                "get": {
                    "operationId": "metrics",
                    "summary": "Counters for Prometheus",
                    "description": "Needs a token where queries do, except for who asks from this machine itself.",
                    "security": [{}, {"token": []}],
                    "responses": {
                        "200": {
                            "description": "The text format of Prometheus.",
                            "content": {
                                "text/plain": {
                                    "schema": {"type": "string"},
                                    "example": "jammi_flight_queries_total 12.0",
                                }
                            },
                        },
                        "401": _error(401, "Error"),
                    },
                }
            },
            "/openapi.json": {
                "get": {
                    "operationId": "openapi",
                    "summary": "This documentation, for programs",
                    "description": "A document of OpenAPI 3.1.",
                    "security": [],
                    "responses": {"200": _answer("The document.", {"openapi": "3.1.0"})},
                }
            },
            "/docs": {
                "get": {
                    "operationId": "docs",
                    "summary": "This documentation, for people",
                    "description": "A page that loads nothing from elsewhere.",
                    "security": [],
                    "responses": {
                        "200": {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}}
                    },
                }
            },
        },
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token that `jammi-duck token add NAME` has made, where the server asks for one.",
                }
            },
            "schemas": {
                "SearchRequest": _SEARCH_REQUEST,
                "SearchResponse": _SEARCH_RESPONSE,
                "EmbeddingsRequest": _EMBEDDINGS_REQUEST,
                "EmbeddingsResponse": _EMBEDDINGS_RESPONSE,
                "Error": _FLAT_ERROR,
                "OpenAIError": _OPENAI_ERROR,
            },
        },
    }


def _posting(
    name: str,
    summary: str,
    about: str,
    request: tuple[str, object],
    response: tuple[str, object],
    statuses: Iterable[int],
    error: str,
) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "description": about,
        "security": [{}, {"token": []}],
        "requestBody": {"required": True, "content": _content(*request)},
        "responses": {
            "200": {"description": "The answer.", "content": _content(*response)},
            **{str(status): _error(status, error) for status in statuses},
        },
    }


def _getting(
    name: str, summary: str, about: str, example: object, others: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "description": about,
        "security": [],
        "responses": {"200": _answer("It is so.", example), **(others or {})},
    }


def _content(schema: str, example: object) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}}


def _answer(about: str, example: object) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": {"type": "object"}, "example": example}}}


def _error(status: int, schema: str) -> dict[str, Any]:
    codes = ", ".join(f"`{word}`" for word in words_for(status))
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {
        "description": f"{_WORDS[status]} Code: {codes}.",
        "content": {"application/json": {"schema": reference}},
    }
