"""A model behind HTTP: the arguments that all providers share, and what each says of its own form of requests."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from jammi_duck.encoder.functions import TextEmbeddingFunction
from jammi_duck.errors import InputError, ModelError
from jammi_duck.types import Role

if TYPE_CHECKING:
    from jammi_duck.encoder import Encoder, Encoders


@dataclass(frozen=True)
class Answer:
    """The vectors of a request's texts, in their order, each as the server gave it, and its count of tokens."""

    vectors: Sequence[Any]
    tokens: int | None


_MOST = 10**9


class Malformed(Exception):
    """An answer is not of the provider's form."""


class RemoteFunction(TextEmbeddingFunction):
    """A model behind HTTP.

    Args:
        api_key: a placeholder such as `$var:key`. If it is missing, the provider's environment variable is used, or a
            secret of DuckDB of the type `http` for its URL.
        base_url: where the provider is reached; another one for a server that speaks the same protocol.
        dimensions: how many numbers a vector has, where the model can give several, or is not known here.
        timeout: seconds for one request.
        max_wait: the most seconds to wait before a request is made again.
        max_in_flight: how many requests are made at once.
        batch_size: how many texts one request has; as many as the provider takes, by default.
        max_requests: how many requests one build, refresh or fill may make; all calls of `embed` and searches together.
        max_tokens: how many tokens these may have.
    """

    # What a subclass says of its provider.
    url: ClassVar[str] = ""
    key_variables: ClassVar[tuple[str, ...]] = ()
    url_variables: ClassVar[tuple[str, ...]] = ()
    known_dimensions: ClassVar[Mapping[str, int]] = {}
    most_texts: ClassVar[int] = 128
    most_tokens: ClassVar[int] = 100_000
    needs_key: ClassVar[bool] = True
    # What to do where nobody answers.
    when_away: ClassVar[str] = "run the same again later"
    keyless_by_argument: ClassVar[bool] = True

    api_key: str | None = None
    base_url: str | None = None
    dimensions: int | None = None
    timeout: float = 60.0
    max_wait: float = 120.0
    max_in_flight: int = 8
    batch_size: int | None = None
    max_requests: int | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        """Check the arguments.

        Raises:
            InputError: one has a value that it cannot have; the message shows it as it was given.
        """
        for field in dataclasses.fields(self):
            value = vars(self)[field.name]
            if "str" in str(field.type) and value is not None and not isinstance(value, str):
                raise InputError(f"{field.name} of '{self.id}' is {self.shown(field.name)}; it must be a text")
        for key in ("dimensions", "max_in_flight", "batch_size"):
            self._check(key, int, 1)
        for key in ("max_retries", "max_requests", "max_tokens"):
            self._check(key, int, 0)
        for key in ("timeout", "max_wait"):
            self._check(key, float, 0)
        if not self.name:
            raise InputError(f"'{self.id}' needs the name of a model: '{self.id}:NAME'")
        if not self.endpoint.startswith(("https://", "http://")):
            raise InputError(
                f"base_url of '{self.id}' is {self.shown('base_url')}; it must begin with https:// or http://"
            )

    def _check(self, key: str, kind: type, least: int) -> None:
        value = vars(self)[key]
        if value is None and self.arguments()[key] is None:
            return
        kinds = (int, float) if kind is float else int
        if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= _MOST:
            whole = "a whole number" if kind is int else "a number"
            raise InputError(f"{key} of '{self.id}' is {self.shown(key)}; it must be {whole} of at least {least}")

    @classmethod
    def passing_keys(cls) -> Sequence[str]:
        """See `EmbeddingFunction.passing_keys`."""
        limits = ("timeout", "max_wait", "max_in_flight", "batch_size", "max_requests", "max_tokens")
        return (*super().passing_keys(), *limits)

    @classmethod
    def unrecorded_keys(cls) -> Sequence[str]:
        """See `EmbeddingFunction.unrecorded_keys`: a limit is one of the call, and not of all later searches."""
        return ("max_requests", "max_tokens")

    @classmethod
    def surroundings(cls) -> Mapping[str, Any]:
        """See `EmbeddingFunction.surroundings`."""
        url = _first(cls.url_variables)
        return {"base_url": url} if url else {}

    @property
    def endpoint(self) -> str:
        """Where requests go, without a slash at its end."""
        return (self.base_url or self.url).rstrip("/")

    def key(self) -> str | None:
        """The secret, from the argument or the environment, if there is one.

        Raises:
            InputError: it has characters that no header can have; it is not shown.
        """
        key = self.api_key or (None if self.is_keyless else _first(self.key_variables))
        return None if key is None else self.clean(key)

    def clean(self, key: str) -> str:
        """A key without the spaces and ends of lines around it. Raises InputError as `key` does."""
        cleaned = key.strip()
        if not cleaned.isascii() or not cleaned.isprintable():
            raise InputError(
                f"the key of '{self.id}' has characters that no key has, such as an end of a line within it; check "
                f"what {' or '.join(self.key_variables)}, or api_key, was set to"
            )
        return cleaned

    @property
    def is_keyless(self) -> bool:
        """Whether there is no key but that of the arguments: somebody else has said where the provider is."""
        return bool(vars(self).get("_is_keyless"))

    # What the form of a provider's requests is.

    def address(self) -> str:
        """The URL of a request."""
        raise NotImplementedError

    def headers(self, key: str | None) -> Mapping[str, str]:
        """The headers of a request."""
        return {"authorization": f"Bearer {key}"} if key else {}

    def body(self, texts: Sequence[str], role: Role) -> Mapping[str, Any]:
        """The content of a request, as JSON has it."""
        raise NotImplementedError

    def answer(self, content: bytes, count: int) -> Answer:
        """The vectors in an answer to a request of so many texts.

        Raises:
            Malformed: they are not there, or not as many.
        """
        raise NotImplementedError

    # What users call.

    def ndims(self) -> int:
        """See `EmbeddingFunction.ndims`. A model that is not known here is asked once."""
        return self.dimensions or self.known_dimensions.get(self.name) or self._encoder.dimensions

    def generate_embeddings(self, texts: list[str]) -> list[Any]:
        """The vectors of texts, in their order; None for a text that the provider refuses."""
        encodings = self._encoder.encode_rows(texts, "document", lambda _: None)
        return [None if failed else each for each, failed in zip(encodings.vectors, encodings.failed, strict=True)]

    def compute_query_embeddings(self, query: Any) -> list[Any]:  # noqa: ANN401 - see the base
        """See `EmbeddingFunction.compute_query_embeddings`."""
        return list(self._encoder.encode([query] if isinstance(query, str) else list(query), "query"))

    @cached_property
    def _encoder(self) -> Encoder:
        from jammi_duck.encoder.providers.remote_encoder import RemoteEncoder

        return RemoteEncoder(self)

    def encoder(self, encoders: Encoders) -> Encoder:
        """See `EmbeddingFunction.encoder`."""
        from jammi_duck.encoder.providers.remote_encoder import RemoteEncoder

        return RemoteEncoder(self, encoders.vector_cache, encoders.secret)


def decoded(content: bytes, kind: type[Any]) -> Any:  # noqa: ANN401 - of that kind
    """An answer's JSON as a structure. Raises Malformed."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"the answer is not as it should be: {error}") from None


def in_order(
    items: Sequence[Any], count: int, index: Callable[[Any], int | None], vector: Callable[[Any], Any]
) -> list[Any]:
    """The vectors of items that say by an `index` which text they belong to.

    Raises:
        Malformed: one is missing, or there are two for one text.
    """
    by_index: dict[int | None, Any] = {index(each): vector(each) for each in items}
    if len(items) != count or set(by_index) != set(range(count)):
        raise Malformed(f"the answer has {len(items)} vectors, for {len(by_index)} different texts of {count}")
    return [by_index[place] for place in range(count)]


def count_of(given: object) -> int | None:
    """A number of tokens that a server tells; None where it is none that can be."""
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= _MOST:
        return None
    return int(given)


def as_many(vectors: Sequence[Any], count: int) -> Sequence[Any]:
    """Vectors that are in the order of their texts. Raises Malformed if they are not as many."""
    if len(vectors) != count:
        raise Malformed(f"the answer has {len(vectors)} vectors for {count} texts")
    return vectors


def _first(variables: Sequence[str]) -> str | None:
    return next((os.environ[name] for name in variables if os.environ.get(name)), None)


def refused(id: str, what: str) -> ModelError:
    """The error for what a provider does not do."""
    return ModelError(f"'{id}' {what}")
