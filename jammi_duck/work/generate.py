"""The story of a build: rows -> vectors -> files -> ready.

DuckDB pushes a source's rows through three calls, inside the caller's own query: `begin` once, `push` for each chunk,
from several threads, and `finish` once. Between them a build is running; it is known by its token. Several embeddings
of a source are several builds that run together: each row is pushed to each of them, and they end together.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from jammi_duck.config.logs import log
from jammi_duck.encoder import Encoder, Encoders, Identity, Usage
from jammi_duck.encoder.blanks import is_blank
from jammi_duck.encoder.dimensions import resolve_dims
from jammi_duck.encoder.no_vectors import NO_VECTORS
from jammi_duck.encoder.passages import resolve_rule
from jammi_duck.encoder.recorded import DOCUMENT
from jammi_duck.errors import BuildError, InputError, JammiWarning
from jammi_duck.fields import PASSAGES, WORDS_ONLY
from jammi_duck.sql import folded
from jammi_duck.storage.files import layout
from jammi_duck.storage.files.manifest import Manifest
from jammi_duck.storage.tables.build import Build
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.words.analyser import ENGLISH, analyser
from jammi_duck.types import Analysis, Caller, Counts, Definition, Integer, PassageRule
from jammi_duck.work.cut_texts import add_texts, buffer_of, unpacked
from jammi_duck.work.jobs import Job, Jobs, S
from jammi_duck.work.progress import Progress
from jammi_duck.work.text_buffer import Room

SOURCE_CHANGED = (
    "the source did not give the same rows when it was read again; if it can be read only once, or changes while it is "
    "read, CREATE TEMP TABLE from it first"
)

# The advice when the keys of an existing embedding table are no longer valid.
GENERATE_ANEW = "generate anew with another key"

# The token of a build that is none: a table is there already.
_REUSED = "ready/"
_AGAIN = (
    "this connection has already made '{}' from the same rows, and it is returned again. con.sql runs its query each "
    "time you look at its relation: use con.execute or jammi.generate. To build another table, drop this one first"
)
_MOST_MADE = 64
# Where a larger part of the texts is cut off, it is said.
_MOST_TRUNCATED = 0.05

# Types whose text does not lead back to the same value in every session.
_UNFIT_KEYS = ("STRUCT", "MAP", "UNION", "VARIANT", "GEOMETRY")
_UNFIT_ENDINGS = ("]", "WITH TIME ZONE", "TIMESTAMPTZ_NS")


@dataclass(frozen=True)
class Cutting:
    """How a user wants texts to be cut into passages; None for what is not said. See `PassageRule`."""

    tokens: int | None = None
    overlap: int | None = None
    by: str | None = None
    title: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """What the user asked to generate; `columns` are joined by one space, NULLs left out.

    `model` is empty for a table of words only. `dims` is how many dimensions the vectors are cut to, and `name` what
    the table is to be called. The words are indexed, as those of a `language`, unless that is None. `reuse` is a table
    that is as good as a new one if it does not differ from the source; `again` says that nobody asked for that.
    `embedding` is the label of one of several embeddings of the source. With `pictures`, texts stand for these.
    `passages` says how texts are cut, if they are.
    """

    source: str
    columns: tuple[str, ...]
    key: str
    model: str
    dims: int | None = None
    name: str | None = None
    language: str | None = ENGLISH
    reuse: str | None = None
    again: bool = False
    embedding: str | None = None
    pictures: bool = False
    passages: Cutting | None = None


@dataclass(frozen=True)
class Census:
    """What a first look at the source found: its rows, those with a key, the distinct keys, and the key's type."""

    rows: int
    non_null_keys: int
    distinct_keys: int
    key_type: str


@dataclass(frozen=True)
class Generated:
    """What a build came to; `seconds` is the whole of it, `location` where the files are.

    A table of words only has no `model` and no `dimensions`. Only a provider is asked by `requests` with `tokens`.
    `passage_count` is there if texts were cut into passages, and `advice` if many were cut off.
    """

    embedding_table: str
    source: str
    model: str | None
    status: str
    row_count: int
    skipped_count: int
    failed_count: int
    truncated_count: int
    dimensions: Integer | None
    seconds: float
    location: str
    requests: Integer | None = None
    tokens: int | None = None
    passage_count: int | None = None
    advice: str | None = None


class Generator:
    """The builds that run in one database of this process."""

    def __init__(self, tables: EmbeddingTables, encoders: Encoders, jobs: Jobs) -> None:
        """Build in `tables`, with models of `encoders`."""
        self._tables = tables
        self._encoders = encoders
        self._jobs = jobs
        # What sessions have made of requests.
        self._made: OrderedDict[tuple[str, Request], str] = OrderedDict()

    def made_before(self, request: Request, caller: Caller) -> Entry | None:
        """The ready table that the caller's session has made of the same request.

        A relation of DuckDB's runs its query at each look, and a later look is not meant to make another table.
        """
        build = self._made.get((caller.session, request))
        entries = self._tables.catalog.entries("ready", source=request.source)
        return next((entry for entry in entries if entry.build == build), None)

    def begin(
        self, requests: Sequence[Request], census: Census, differing_rows: Sequence[int | None], caller: Caller
    ) -> list[str]:
        """Check everything that can be wrong, and start a build for each request; returns their tokens.

        The requests are for one source, key and model. `differing_rows` is, for each, how many rows differ from the
        table that it would use again.

        Raises:
            InputError: the keys are not unique, not all there, or of a type that cannot be a key; or the model has
                not so many dimensions.
            ModelError: the model cannot be had.
            StorageError: the location cannot be written.
        """
        self._jobs.settle(caller)
        check_keys(requests[0].source, requests[0].key, census)
        encoder = _encoder(self._encoders, requests[0])
        dimensions = resolve_dims(requests[0].dims, encoder)
        rules = [rule_of(request, encoder) for request in requests]
        definitions = [
            define(request, encoder.identity, dimensions, rule) for request, rule in zip(requests, rules, strict=True)
        ]
        reused = [
            self._reusable(request, definition) if rows == 0 else None
            for request, definition, rows in zip(requests, definitions, differing_rows, strict=True)
        ]
        room = Room(max(1, reused.count(None)))
        tokens: list[str] = []
        together: list[Job[_Build]] = []
        for request, definition, made in zip(requests, definitions, reused, strict=True):
            if made:
                tokens.append(_REUSED + made)
                continue
            start = functools.partial(self._start, request, definition, encoder, census, caller, room)
            with self._jobs.ending_on_error(together[0]) if together else contextlib.nullcontext():
                job = self._jobs.start(caller, start, together)
            with self._jobs.ending_on_error(job):
                job.work.open()
            tokens.append(job.work.id)
        return tokens

    def _reusable(self, request: Request, definition: Definition) -> str | None:
        """The name of the table that a request would use again, if that is what it would make."""
        if not request.reuse:
            return None
        made = self._tables.ready(request.reuse)
        # An older name of the source, another spelling of its columns, and another name or revision of the same model,
        # do not change its vectors.
        same = dataclasses.replace(made.definition, source=definition.source, revision=definition.revision)
        if _has_same_columns(made.definition, definition):
            same = dataclasses.replace(
                same, columns=definition.columns, key=definition.key, passages=definition.passages
            )
        if definition.weights:
            same = dataclasses.replace(same, model=definition.model)
        if same != definition or not has_same_words(made.definition, definition.words):
            return None
        if request.again:
            warnings.warn(_AGAIN.format(made.name), JammiWarning, stacklevel=2)
        return made.name

    def _start(
        self, request: Request, definition: Definition, encoder: Encoder, census: Census, caller: Caller, room: Room
    ) -> Job[_Build]:
        owner = f"{caller.session}/{caller.transaction}"
        build = _Build(self._tables, definition, owner, encoder, census, request, room)
        label = "embedding" if definition.has_vectors else "indexing words"
        return Job(build, "build", caller, Progress(label, definition.label, census.rows))

    def push(self, token: str, rows: Iterable[tuple[str | None, str | None]]) -> None:
        """Take keys with texts, and embed what has gathered whenever it is enough. Threads may push at once."""
        if token.startswith(_REUSED):
            return
        job = self._jobs.find(token, _Build)
        build = job.work
        skipped, has_title = 0, bool(build.definition.title_columns)

        def with_text() -> Iterator[tuple[Sequence[str], str]]:
            nonlocal skipped
            for key, text in rows:
                if key is None or text is None or is_blank(unpacked(text, has_title=has_title)[1]):
                    skipped += 1
                else:
                    yield [key], text

        with self._jobs.ending_on_error(job):
            job.raise_if_stopped()
            counts = add_texts(build.buffer, with_text(), job, job.advance)
            with job.lock:
                build.counts += counts + Counts(skipped=skipped)

    def finish(self, tokens: Sequence[str], pushed: Sequence[int]) -> list[Generated]:
        """Embed the rest, build the indexes, and make the tables ready. `pushed` is how many rows came to each.

        No table is ready before all of them can be.
        """
        jobs = {token: self._jobs.find(token, _Build) for token in tokens if not token.startswith(_REUSED)}
        for token, rows in zip(tokens, pushed, strict=True):
            if token in jobs:
                self._embed_rest(jobs[token], rows)
        finished = {token: self._finished(job) for token, job in jobs.items()}
        return [
            self._ready(jobs[token], finished[token]) if token in jobs else self._reused(token.removeprefix(_REUSED))
            for token in tokens
        ]

    def _reused(self, name: str) -> Generated:
        entry = self._tables.ready(name)
        segments, tombstones = self._tables.catalog.files(entry.build)
        return _again(entry, sum(each.rows for each in segments) - sum(each.rows for each in tombstones))

    def _embed_rest(self, job: Job[_Build], pushed: int) -> None:
        build = job.work
        with self._jobs.ending_on_error(job):
            if pushed != build.census.rows:
                raise BuildError(
                    f"the source was counted with {build.census.rows} rows, and then gave {pushed}; if it can be "
                    "read only once, or changes while it is read, CREATE TEMP TABLE from it first"
                )
            build.counts += build.buffer.flush(job, job.advance)
            job.progress.done()

    def _finished(self, job: Job[_Build]) -> Manifest:
        with self._jobs.ending_on_error(job), indexing(job, job.work.rows) as advance:
            return job.work.finish(job.work.counts, advance)

    def _ready(self, job: Job[_Build], finished: Manifest) -> Generated:
        build = job.work
        with self._jobs.ending_on_error(job):
            build.commit(finished)
        self._jobs.done(job)
        self._made[job.caller.session, build.request] = build.id
        while len(self._made) > _MOST_MADE:
            self._made.popitem(last=False)
        generated = report(finished, build.began, self._tables.store.location, build.buffer.usage)
        log_built(generated)
        return generated


class _Build(Build):
    """A build, and what it is made of so far."""

    def __init__(
        self,
        tables: EmbeddingTables,
        definition: Definition,
        owner: str,
        encoder: Encoder,
        census: Census,
        request: Request,
        room: Room,
    ) -> None:
        super().__init__(tables, definition, owner, request.name)
        self.request = dataclasses.replace(request, reuse=None, again=False)
        self.census = census
        self.counts = Counts()
        self.buffer = buffer_of(encoder, definition, room)
        self.began = time.monotonic()


def find_reusable(tables: EmbeddingTables, encoders: Encoders, request: Request) -> Entry | None:
    """The newest ready table that may be what a request would make."""
    made = tables.catalog.entries("ready", source=request.source)
    return next(matching_entries(made, encoders, request), None)


def matching_entries(entries: Sequence[Entry], encoders: Encoders, request: Request) -> Iterator[Entry]:
    """The tables whose definition may be that of a request.

    A name of a model may have other files than it had. So what a table records of its model decides, and the name only
    if it records nothing else.

    Raises:
        InputError: the model has not so many dimensions.
        ModelError: the model cannot be had.
    """
    if not entries:
        return
    names = encoders.names(request.model) if request.model else {""}
    encoder = _encoder(encoders, request)
    words = _analysis(request)
    dimensions, rule = resolve_dims(request.dims, encoder), rule_of(request, encoder)
    for entry in entries:
        made = entry.definition
        wanted = dataclasses.replace(made, columns=request.columns, key=request.key, passages=rule)
        is_same = made.dimensions == dimensions and _has_same_columns(made, wanted) and _is_same_one(made, request)
        is_called = request.name is None or layout.is_called(entry.name, request.name)
        is_of_model = _embeds_as(encoder.identity, made) if made.weights else made.model in names
        if is_same and is_called and is_of_model and has_same_words(made, words):
            yield entry


def has_same_words(made: Definition, words: Analysis | None) -> bool:
    """Whether a table has the words that are wanted; where there are vectors, the words do not matter."""
    if made.has_vectors or made.words is None or words is None:
        return made.has_vectors
    return (made.words.analyser, made.words.language) == (words.analyser, words.language)


def _has_same_columns(made: Definition, wanted: Definition) -> bool:
    """Whether two tables are of the same columns and key, as DuckDB compares names, and their texts are cut alike."""

    def read(definition: Definition) -> tuple[object, ...]:
        rule = definition.passages
        named = (*definition.text_columns, definition.key)
        cut_so = None if rule is None else dataclasses.replace(rule, title=tuple(map(folded, rule.title)))
        return [*map(folded, named)], cut_so

    return read(made) == read(wanted)


def _is_same_one(made: Definition, request: Request) -> bool:
    """Whether a table is the one of several embeddings that a request is for, or the only one, as that is."""
    theirs, wanted = (None if each.embedding is None else folded(each.embedding) for each in (made, request))
    return theirs == wanted


def _embeds_as(model: Identity, made: Definition) -> bool:
    """Whether a model embeds texts as that of a table did, so that a refresh may add its vectors."""
    return all(getattr(model, part) == getattr(made, part) for part in DOCUMENT)


def _encoder(encoders: Encoders, request: Request) -> Encoder:
    return encoders.get(request.model) if request.model else NO_VECTORS


def _analysis(request: Request) -> Analysis | None:
    has_words = request.language is not None and request.columns
    return analyser(request.language).analysis if has_words else None


def check_keys(source: str, key: str, census: Census, otherwise: str = "choose another key") -> None:
    """Raise InputError if keys repeat, are NULL, or have a type that cannot be a key.

    `otherwise` ends the message: what else the user can do.
    """
    where = f"the key '{key}' of '{source}'"
    if census.key_type.startswith(_UNFIT_KEYS) or census.key_type.endswith(_UNFIT_ENDINGS):
        raise InputError(
            f"{where} is a {census.key_type}, whose text depends on the session or does not identify the value; "
            "cast it first"
        )
    if census.non_null_keys < census.rows:
        missing = census.rows - census.non_null_keys
        raise InputError(f"{where} is NULL in {missing} of {census.rows} rows; filter them out, or {otherwise}")
    if census.distinct_keys < census.non_null_keys:
        repeated = census.non_null_keys - census.distinct_keys
        raise InputError(
            f"{where} is not unique: {repeated} of {census.rows} rows repeat another's; make it so, or {otherwise}"
        )


def rule_of(request: Request, encoder: Encoder) -> PassageRule | None:
    """How the texts of a request are cut for a model. Raises InputError for what does not fit it."""
    asked = request.passages
    return None if asked is None else resolve_rule(encoder, asked.tokens, asked.overlap, asked.by, asked.title)


def define(request: Request, model: Identity, dimensions: int, passages: PassageRule | None = None) -> Definition:
    """The definition of what a request makes with a model. Raises InputError for an unknown language."""
    features = [*([] if dimensions else [WORDS_ONLY]), *([] if passages is None else [PASSAGES])]
    return Definition(
        source=request.source,
        columns=request.columns,
        key=request.key,
        model=model.name,
        revision=model.revision,
        weights=model.weights,
        pooling=model.pooling,
        prompt=model.prompt,
        precision=model.precision,
        max_tokens=model.max_tokens,
        dimensions=dimensions,
        words=_analysis(request),
        embedding=request.embedding,
        pictures=request.pictures,
        passages=passages,
        unknown={"features": features} if features else {},
    )


def asked(requests: int | None, tokens: int | None) -> str:
    """How the log tells of a provider."""
    return "" if requests is None else f"; {requests:,} requests with {tokens:,} tokens"


@contextlib.contextmanager
def indexing(job: Job[S], rows: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of an index of so many rows; gives what is to be told of each part."""
    with Progress("indexing", job.work.definition.label, rows) as bar:

        def advance(done: int) -> None:
            job.raise_if_stopped()
            bar.advance(done)

        yield advance


def log_built(generated: Generated) -> None:
    """Tell the log."""
    if generated.advice:
        warnings.warn(f"'{generated.embedding_table}': {generated.advice}", JammiWarning, stacklevel=2)
    log.info(
        "built %s: %d rows in %.1f s; %d skipped, %d failed, %d truncated%s",
        generated.embedding_table,
        generated.row_count,
        generated.seconds,
        generated.skipped_count,
        generated.failed_count,
        generated.truncated_count,
        asked(generated.requests, generated.tokens),
        extra=dataclasses.asdict(generated),
    )


def _again(entry: Entry, stored: int) -> Generated:
    """A table that is there; it has so many rows of vectors."""
    passages = stored if entry.definition.passages else 0
    counts = dataclasses.replace(entry.counts, passages=passages)
    return _generated(entry.name, entry.definition, counts, 0.0, entry.location)


def report(finished: Manifest, began: float, location: str, usage: Usage | None = None) -> Generated:
    """What a build came to that began then, by `time.monotonic`; `usage` is what was asked of a provider."""
    seconds = round(time.monotonic() - began, 3)
    generated = _generated(finished.table, finished.definition, finished.counts, seconds, location)
    if usage is None:
        return generated
    return dataclasses.replace(generated, requests=usage.requests, tokens=usage.tokens)


def _generated(table: str, definition: Definition, counts: Counts, seconds: float, location: str) -> Generated:
    return Generated(
        embedding_table=table,
        source=definition.source,
        model=definition.model or None,
        status="ready",
        row_count=counts.rows,
        skipped_count=counts.skipped,
        failed_count=counts.failed,
        truncated_count=counts.truncated,
        dimensions=definition.dimensions or None,
        seconds=seconds,
        location=location,
        passage_count=counts.passages if definition.passages else None,
        advice=_advice(definition, counts),
    )


def _advice(definition: Definition, counts: Counts) -> str | None:
    """What to do where many texts are longer than the model reads."""
    if definition.passages or counts.truncated <= _MOST_TRUNCATED * counts.rows:
        return None
    share = round(100 * counts.truncated / counts.rows)
    return (
        f"{share} % of the texts are longer than the model reads, and their ends cannot be found: "
        "passages := true (--passages on the command line) embeds them by their passages"
    )
