"""The scalar functions that call a model and keep nothing: `embed`, the rows of `jammi_infer`, scores of re-rankers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

import numpy as np
import pyarrow as pa

from jammi_duck.arrays import flags, numbers
from jammi_duck.encoder.blanks import is_blank
from jammi_duck.encoder.dimensions import cut, resolve_dims
from jammi_duck.errors import InputError
from jammi_duck.sql import NULL, Sql, joined, literal, quoted, sql
from jammi_duck.types import Role, Vectors
from jammi_duck.udfs.arguments import parse_int, parse_model
from jammi_duck.udfs.columns import Column, fields_of, vector_column
from jammi_duck.udfs.disambiguation import disambiguate_new
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.rows import check_pictures, column_names, text_of, texts_picked
from jammi_duck.udfs.sources import SearchPath, Source, resolve
from jammi_duck.work.infer import check_task, infer


@dataclass(frozen=True)
class InferredRow:
    """What a row of `jammi_infer` has beside its id and its source."""

    _model: str
    _status: str
    _error: str | None
    _latency_ms: float
    vector: Annotated[object, "FLOAT[]"]


def embed(engine: Engine, text: Column, model: Column, role: Column, dims: Column) -> pa.Array:
    """The vectors of texts, NULL for a blank one; each row may name another model, role and dimensions."""
    groups: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
    texts = text.to_pylist()
    for i, options in enumerate(zip(model.to_pylist(), role.to_pylist(), dims.to_pylist(), strict=True)):
        groups[options].append(i)
    encoded: list[tuple[list[int], Vectors]] = []
    for (name, wanted_role, dims_of_row), rows in groups.items():
        if wanted_role not in ("document", "query"):
            raise InputError(f"role is {wanted_role!r}; it must be 'document' or 'query'")
        mine = [i for i in rows if texts[i] is not None and not is_blank(texts[i])]
        encoder = engine.encoders.get(name or engine.default_model) if mine or name else None
        if encoder is None:
            continue
        dimensions = resolve_dims(parse_int(dims_of_row, "dims"), encoder)
        if mine:
            vectors = encoder.encode([texts[i] for i in mine], cast("Role", wanted_role))
            encoded.append((mine, cut(vectors, dimensions)))
    return vector_column(len(texts), encoded)


def takes_images(engine: Engine, model: Column) -> pa.Array:
    """Whether models take pictures."""
    names = (name or engine.default_model for name in model.to_pylist())
    return flags(engine.encoders.takes_images(name) for name in names)


def rerank(engine: Engine, query: Column, text: Column, model: Column) -> pa.Array:
    """The scores of texts for queries; each row may name another model. NULL for a blank text or query, or no model."""
    queries, texts = query.to_pylist(), text.to_pylist()
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(model.to_pylist()):
        if name is not None:
            groups[name].append(i)
    scores = np.full(len(texts), np.nan, np.float32)
    for name, rows in groups.items():
        reranker = engine.encoders.reranker(name)
        mine = [i for i in rows if not any(each is None or is_blank(each) for each in (queries[i], texts[i]))]
        scores[mine] = reranker.scores([(queries[i], texts[i]) for i in mine])
    return numbers(scores, nan_is_null=True)


@dataclass(frozen=True)
class InferCall:
    """The arguments of `jammi_infer` as SQL gives them; `cols` is JSON."""

    source: str | None
    search_path: SearchPath
    cols: str | None
    key: str | None
    model: str | None
    task: str | None
    dims: str | None


def infer_plan(engine: Engine, call: InferCall) -> Sql:
    """The query that embeds a source's rows as they are read."""
    check_task(call.task)
    if call.source is None or call.cols is None or call.key is None:
        raise InputError("jammi_infer needs a source, its columns and its key: none of them may be NULL")
    resolved = resolve(call.source, call.search_path, engine.host)
    known = disambiguate_new(engine, resolved)
    name = known.identity if known else resolved.written
    model, dims = parse_model(call.model) or engine.default_model, parse_int(call.dims, "dims")
    columns, pictures = column_names(call.cols), engine.encoders.takes_images(model)
    if pictures:
        check_pictures(columns, model)
    return _inference(resolved, name, columns, call.key, model, dims, pictures=pictures)


def _inference(
    source: Source, name: str, columns: Sequence[str], key: str, model: str, dims: int | None, *, pictures: bool
) -> Sql:
    """The query that embeds a source's rows as they are read, so that a LIMIT or a condition spares the others.

    There is no `unnest` in it: DuckDB moves a LIMIT, and a condition on the key, to below a projection only.
    """
    fields = (
        sql("struct_extract(inferred, {}) AS {}", literal(field), quoted(field)) for field in fields_of(InferredRow)
    )
    return sql(
        "SELECT _row_id, {name} AS _source, {fields} FROM (SELECT r.c0::VARCHAR AS _row_id, "
        "_jammi_infer({text}, {model}, {dims}::BIGINT) AS inferred FROM ({rows}) r)",
        name=literal(name),
        fields=joined(", ", fields),
        text=text_of(columns, pictures=pictures),
        model=literal(model),
        dims=NULL if dims is None else dims,
        rows=texts_picked(source, columns, key, pictures=pictures),
    )


def infer_texts(engine: Engine, texts: Column, model: Column, dims: Column) -> pa.Array:
    """The model and the dimensions are the same in all rows."""
    inferred, name = [], None
    if len(texts):
        encoder = engine.encoders.get(model[0].as_py())
        name = encoder.identity.name
        inferred = infer(encoder, texts.to_pylist(), dims[0].as_py())
    there = [i for i, each in enumerate(inferred) if each.vector is not None]
    vectors = [(there, np.array([inferred[i].vector for i in there]))] if there else []
    columns = [
        pa.array([name] * len(inferred), pa.string()),
        pa.array(["error" if each.error else "ok" for each in inferred], pa.string()),
        pa.array([each.error for each in inferred], pa.string()),
        pa.array([each.latency_ms for each in inferred], pa.float64()),
        vector_column(len(inferred), vectors),
    ]
    return pa.StructArray.from_arrays(columns, names=list(fields_of(InferredRow)))
