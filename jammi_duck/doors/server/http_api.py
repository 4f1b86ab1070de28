"""What the routes for JSON do: embed texts as OpenAI's clients ask for it, and search."""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from jammi_duck.config.logs import log
from jammi_duck.doors.server.admission import GoneError
from jammi_duck.doors.server.http_requests import EMBEDDINGS, MOST_TEXTS, SEARCH, SEARCH_OPTIONS, asked_in
from jammi_duck.doors.server.identity import Visitor
from jammi_duck.doors.server.service import LimitError, Query, Service
from jammi_duck.doors.server.statements import statement_of
from jammi_duck.encoder import Encoder
from jammi_duck.encoder.blanks import is_blank
from jammi_duck.encoder.dimensions import cut
from jammi_duck.errors import EncodingError, InputError
from jammi_duck.sql import Sql, folded, joined, literal, quoted, sql
from jammi_duck.types import Role, Vectors

_MOST_DATE = 2**31 - 1
_MOST_TIME = 2**63 - 1
_NO_COLUMN = re.compile(r"does not have a column named \"(?P<name>.*?)\"", re.DOTALL)
_RESULT = quoted("_jammi_result")
# What a search adds to the columns of the source.
_FOUND = ("_row_id", "_rank", "_score", "_similarity", "_distance", "_bm25")
_RERANKED = "_rerank"
# The order of passages of a row.
_THEN = sql(", {}._score DESC NULLS LAST", _RESULT)


class Caller:
    """Who waits for an answer, and may leave before it comes."""

    def __init__(self, service: Service) -> None:
        """One request's."""
        self._service = service
        self._has_left = threading.Event()
        self._query: Query | None = None

    def is_gone(self) -> bool:
        """Whether nobody waits any more."""
        return self._has_left.is_set()

    def raise_if_gone(self) -> None:
        """Raise GoneError where nobody waits any more."""
        if self.is_gone():
            raise GoneError("the client has gone away")

    def awaits(self, query: Query) -> None:
        """Stop this query once nobody waits for it."""
        self._query = query
        self.raise_if_gone()

    def leave(self) -> None:
        """Nobody waits any more: stop what runs."""
        self._has_left.set()
        if self._query is not None:
            self._service.stop(self._query, GoneError("the client has gone away"))


def json_of(value: object) -> bytes:
    """JSON: NaN and infinity are null, dates are ISO 8601, bytes base64, and decimals texts."""
    return msgspec.json.encode(value, enc_hook=str)


# Search.


def search(service: Service, visitor: Visitor, content: bytes, caller: Caller) -> bytes:
    """The rows that a search finds.

    Raises:
        InputError: the request is wrong.
        BusyError, GoneError, LimitError, JammiError: see `Service.answer`.
    """
    asked = asked_in(content, SEARCH, "source", "query")
    text, values = _statement(asked)
    query = Query(statement_of(text), visitor, rows=[values])
    caller.awaits(query)
    try:
        with service.answer(query, caller.is_gone) as (_, batches):
            rows = [row for batch in batches for row in _rows(batch)]
    except InputError as error:
        missing = _NO_COLUMN.search(str(error)) if "columns" in asked else None
        if missing is None:
            raise
        raise InputError(f"'columns': the source has no column '{missing['name']}'") from error
    return json_of({"rows": rows, "seconds": round(time.monotonic() - query.began, 6)})


def _statement(asked: Mapping[str, Any]) -> tuple[Sql, list[Any]]:
    """The statement of a search, and the values of its parameters: nothing that was sent is in it, but quoted names."""
    query = asked["query"]
    options = [sql("?"), sql("?")]
    values = [asked["source"], query if isinstance(query, str) else [float(each) for each in query]]
    for name in SEARCH_OPTIONS:
        if name in asked:
            options.append(sql("{} := ?", quoted(name)))
            values.append(asked[name])
    parameters = asked.get("parameters")
    if parameters:
        named = joined(", ", [sql("{}: ?", literal(name)) for name in parameters])
        options.append(sql("parameters := {{{}}}", named))
        values += parameters.values()
    return (
        sql(
            "SELECT {} FROM jammi_search({}) AS {} ORDER BY {}._rank ASC{}",
            _selected(asked),
            joined(", ", options),
            _RESULT,
            _RESULT,
            _THEN if asked.get("per_row", 1) > 1 else sql(""),
        ),
        values,
    )


def _selected(asked: Mapping[str, Any]) -> Sql:
    if "columns" not in asked:
        return sql("*")
    found = (*_FOUND, _RERANKED) if "rerank" in asked else _FOUND
    wanted = {folded(name): name for name in asked["columns"]}
    own = [name for key, name in wanted.items() if key not in found]
    return joined(", ", [sql("{}.{}", _RESULT, quoted(name)) for name in (*own, *found)])


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    names = batch.schema.names
    columns = [_values(name, column) for name, column in zip(names, batch.columns, strict=True)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(name: str, column: pa.Array) -> list[Any]:
    kind = column.type
    if pa.types.is_interval(kind):
        return [None if value is None else _interval(*value) for value in column.to_pylist()]
    try:
        if not (pa.types.is_timestamp(kind) and kind.unit == "ns"):
            return list(column.to_pylist())
    except (ValueError, OverflowError):
        # Python's years are 1 to 9999.
        if not pa.types.is_timestamp(kind) and not pa.types.is_date(kind):
            raise InputError(
                f"the column '{name}' holds a time beyond the years 1 to 9999 in a list or a struct: leave it out, "
                "with 'columns'"
            ) from None
    return [_time(value, "D" if pa.types.is_date(kind) else kind.unit) for value in column]


def _time(value: pa.Scalar, unit: str) -> str | None:
    if not value.is_valid:
        return None
    most = _MOST_DATE if unit == "D" else _MOST_TIME
    if abs(value.value) >= most:
        return "infinity" if value.value > 0 else "-infinity"
    return str(np.array(value.value).astype(f"datetime64[{unit}]"))


def _interval(months: int, days: int, nanoseconds: int) -> str:
    return f"P{months}M{days}DT{nanoseconds / 1_000_000_000:.9f}".rstrip("0").rstrip(".") + "S"


# Embeddings.


def embeddings(service: Service, visitor: Visitor, content: bytes, caller: Caller) -> bytes:
    """The vectors of texts, in the form of OpenAI's.

    Raises:
        InputError: the request is wrong.
        ModelDeniedError, ModelError: the server has no such model.
        EncodingError: a text has failed.
        BusyError, GoneError, LimitError: it did not get its turn, or was not done in time.
    """
    asked = asked_in(content, EMBEDDINGS, "input")
    texts = _texts(asked["input"])
    model = asked.get("model") or service.config.model
    began = time.monotonic()
    with service.admission.turn(is_search=True, is_gone=caller.is_gone) as waited:
        service.metrics.queue_seconds.observe(waited)
        encoder = service.encoders.get(model)
        dimensions = asked.get("dimensions", encoder.dimensions)
        if not 1 <= dimensions <= encoder.dimensions:
            raise InputError(f"'dimensions' is {dimensions}; '{model}' has 1 to {encoder.dimensions}")
        vectors = cut(_encoded(service, encoder, texts, asked.get("input_type", "document"), caller), dimensions)
    seconds = time.monotonic() - began
    fields = {"user": visitor.name, "model": model, "texts": len(texts), "seconds": round(seconds, 6)}
    log.info("embedding for %s: %d texts in %.3f s", visitor.name, len(texts), seconds, extra=fields)
    is_packed = asked.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(vector) if is_packed else vector.tolist()}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return json_of({"object": "list", "data": data, "model": model, "usage": usage})


def _texts(given: object) -> Sequence[str]:
    texts = given if isinstance(given, list) else [given]
    if not texts:
        raise InputError("'input' is empty: it must be a text, or a list of texts")
    if len(texts) > MOST_TEXTS:
        raise InputError(f"'input' has {len(texts):,} texts, and {MOST_TEXTS:,} at most may be sent at a time")
    for index, text in enumerate(texts):
        if isinstance(text, int | list):
            raise InputError(
                "'input' must be a text, or a list of texts: tokens are those of another model, and are not taken (in "
                "LangChain, set check_embedding_ctx_length=False)"
            )
        if not isinstance(text, str):
            raise InputError(f"'input' must be a text, or a list of texts; number {index} is none")
        if is_blank(text):
            raise InputError(f"'input' has a blank text, number {index}, which has no vector")
    return texts


def _encoded(service: Service, encoder: Encoder, texts: Sequence[str], role: Role, caller: Caller) -> Vectors:
    caller.raise_if_gone()
    if len(texts) == 1:
        return encoder.encode(texts, role)
    limit = service.config.query_timeout.total_seconds()
    drain = service.config.drain.total_seconds()
    began = time.monotonic()
    serving = began

    def progress(_: int) -> None:
        nonlocal serving
        caller.raise_if_gone()
        now = time.monotonic()
        if not service.is_ending:
            serving = now
        elif now - serving > drain:
            raise GoneError("the server ends")
        if now - began > limit:
            raise LimitError(f"the texts took longer than {limit:g} s ([server] query_timeout): send fewer")

    try:
        encodings = encoder.encode_rows(texts, role, progress)
    finally:
        service.metrics.encode_seconds.observe(time.monotonic() - began)
    if encodings.failed.any():
        index = int(encodings.failed.argmax())
        raise EncodingError(
            f"text number {index} of 'input', of {len(texts[index])} characters, could not be embedded: there is not "
            "enough memory for it even alone, or the model's numbers for it overflow"
        )
    return encodings.vectors


def _base64(vector: Vectors) -> str:
    little: Vectors = np.asarray(vector, np.dtype("<f4"))
    return base64.b64encode(little.tobytes()).decode()
