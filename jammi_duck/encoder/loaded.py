"""The models loaded in this process, shared by all connections; the least recently used ones are unloaded.

Encoders and re-rankers share one limit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jammi_duck.encoder.cross_encoder_description import describe_cross_encoder
from jammi_duck.encoder.description import describe, weights_digest
from jammi_duck.encoder.engines import Engines, Wanted
from jammi_duck.encoder.functions_found import Functions
from jammi_duck.encoder.images.clip_description import is_clip
from jammi_duck.encoder.listing import ModelRow, listed, look_at
from jammi_duck.encoder.model_files import state
from jammi_duck.encoder.names import (
    Found,
    find,
    find_folder,
    find_here,
    find_reranker,
    full_name,
    is_model,
    model_folders,
    own_directory,
    verify,
)
from jammi_duck.encoder.native import library
from jammi_duck.encoder.providers import PROVIDERS
from jammi_duck.encoder.wrapper_encoder import WrapperEncoder
from jammi_duck.encoder.wrappers import Wrappers
from jammi_duck.errors import JammiError, ModelError, NoModelError
from jammi_duck.lifetime import at_work
from jammi_duck.threads import beside

if TYPE_CHECKING:
    from jammi_duck.encoder import Encoder, LocalEncoder, Reranker
    from jammi_duck.encoder.description import ModelDescription
    from jammi_duck.encoder.functions import EmbeddingFunction
    from jammi_duck.encoder.images.places import PictureLimits
    from jammi_duck.encoder.local.tokens import CuttingTokenizer
    from jammi_duck.encoder.vector_cache import VectorCache
    from jammi_duck.types import Definition

M = TypeVar("M")
_loaded: OrderedDict[tuple[object, ...], Any] = OrderedDict()
_loading: dict[tuple[object, ...], threading.Lock] = {}
_sharing = threading.Lock()


def _after_fork() -> None:
    """A forked child can use the loaded models; only the locks are made anew."""
    global _sharing
    _sharing = threading.Lock()
    _loading.clear()


os.register_at_fork(after_in_child=_after_fork)


class LoadedEncoders:
    """See `jammi_duck.encoder.Encoders`. All installations of a process share the loaded models."""

    def __init__(
        self,
        batch_size: int,
        most_loaded: int,
        precision: str = "auto",
        threads: int | None = None,
        device: int | None = None,
        gpu_memory: int | float | None = None,
        path: Sequence[str] = (),
        wrappers: Sequence[str] | None = None,
        providers: Mapping[str, Mapping[str, Any]] | None = None,
        foreign_providers: Sequence[str] = (),
        vectors_path: Path | None = None,
        modules: Sequence[str] = (),
        images: PictureLimits | None = None,
        engine: str = "auto",
    ) -> None:
        """`batch_size` texts of full length fit one forward pass; at most `most_loaded` models stay.

        `engine` is native, torch, or auto, which `engines.py` explains. `precision` is float32, bfloat16, int8, or
        auto: bfloat16 where the hardware computes it natively. `threads` is the number of cores to use, by default all.
        `device` is the number of a CUDA device, -1 for the CPU, by default the first CUDA device, if there is one.
        `gpu_memory` is the most of its memory that this process uses: a number of bytes, or a fraction. `path` lists
        directories with model folders and wrappers; of these, only the `wrappers` of these names may run, or all, if
        that is None. `providers` has the arguments of each provider by its id; those of
        `foreign_providers` get no key that the user has elsewhere. What they answer is kept in the file `vectors_path`.
        `modules` are imported before an embedding function of the user's own is looked for. `images` says where
        pictures may be read from; by default, that is nowhere.
        """
        self._batch_size = batch_size
        self._most_loaded = most_loaded
        self._options = Wanted(engine, precision, threads, device, gpu_memory)
        self._engines = Engines(self._options)
        self._path = path
        self._wrappers = Wrappers(path, wrappers)
        self._functions = Functions(providers or {}, foreign_providers, modules)
        self._vectors_path = vectors_path
        self._images = images
        self._find_secret: Callable[[str], str | None] = lambda url: None
        self._encoders: dict[str, tuple[EmbeddingFunction, Encoder]] = {}
        self._found: dict[str, Found] = {}
        self._found_rerankers: dict[str, Found] = {}
        # Where models were seen, by the digest of their weights and their pooling.
        self._seen: dict[tuple[str, str], Found] = {}
        self._digests: dict[tuple[Found, object], tuple[str, str]] = {}

    def get(self, name: str) -> Encoder:
        """See `Encoders.get`: `id:model`, a wrapper's name, one on the hub, a bare name, a folder's, or a directory."""
        function = self._functions.get(name)
        if function is not None:
            return self._around(function)
        wrapper = self._wrappers.get(name)
        if wrapper is not None:
            return WrapperEncoder(wrapper)
        if name in PROVIDERS and find_here(name, self._path) is None:
            raise NoModelError(f"no model '{name}'; a provider's is written with a colon: '{name}:' or '{name}:MODEL'")
        found = self._found.get(name) or find(name, self._path)
        if not found.is_local:
            self._found[name] = found
        return self._loaded_from(found)

    def reranker(self, name: str) -> Reranker:
        """See `Encoders.reranker`. A name as for `get`; a bare name may also be one of a cross-encoder on the hub."""
        found = self._found_rerankers.get(name) or find_reranker(name, self._path)
        if not found.is_local:
            self._found_rerankers[name] = found
        return self._shared(found, self._load_reranker)

    def recorded(self, definition: Definition) -> Encoder:
        """See `Encoders.recorded`."""
        function = self._functions.recorded(definition.model)
        if function is not None:
            return self._around(function)
        wanted = definition.weights, definition.pooling
        if not definition.weights:
            return self.get(definition.model)
        if not definition.pooling:
            return self._recorded_wrapper(definition)
        seen = self._seen.get(wanted)
        if seen and is_model(seen.path):
            with contextlib.suppress(ModelError):
                encoder = self._loaded_from(seen)
                if _computes(encoder, wanted):
                    return encoder
        named: Encoder | None = None
        missing: ModelError | None = None
        try:
            found = find_here(definition.model, self._path)
            if found:
                named = self._loaded_from(found)
            elif "/" not in definition.model:
                # A model of the hub is recorded by its full name.
                raise NoModelError(f"no model '{definition.model}'")
        except ModelError as error:
            missing = error
        if named and _computes(named, wanted):
            return named
        moved = self._moved(definition)
        if moved:
            return self._loaded_from(moved)
        if isinstance(missing, NoModelError):
            looked = ", ".join(f"'{directory}'" for directory in (*self._path, own_directory()))
            raise NoModelError(f"{missing}; no model folder in {looked} has its weights") from missing
        if missing:
            raise missing
        return named or self.get(definition.model)

    def _recorded_wrapper(self, definition: Definition) -> Encoder:
        """The wrapper whose file has the recorded digest; otherwise the one of the recorded name."""
        wrappers = self._wrappers
        wrapper = wrappers.of_digest(definition.weights, definition.model) or wrappers.get(definition.model)
        if wrapper is None:
            raise NoModelError(
                f"no wrapper '{definition.model}': there is no file '{definition.model}.py' in a directory of [models] "
                f"path ({', '.join(self._path) or 'which is empty'}), and no other file there has its content. If "
                f"it is an embedding function of yours, import the module that has @register('{definition.model}') "
                "first, or list it in [models] modules"
            )
        return WrapperEncoder(wrapper)

    def _moved(self, definition: Definition) -> Found | None:
        """The model folder with the weights of a recorded model; the most similar folders are read first."""
        candidates = []
        for found in model_folders(self._path):
            there = look_at(found).description
            if there and there.pooling == definition.pooling and there.dimensions >= definition.dimensions:
                differs = (there.max_tokens, there.prompt("document")) != (definition.max_tokens, definition.prompt)
                candidates.append((differs, found.path.name != Path(definition.model).name, str(found.path), found))
        for *_, found in sorted(candidates, key=lambda candidate: candidate[:3]):
            # What cannot be read is not the one.
            with contextlib.suppress(ModelError):
                if self._weights_and_pooling(found) == (definition.weights, definition.pooling):
                    return found
        return None

    def weights_and_pooling(self, name: str) -> tuple[str, str] | None:
        """See `Encoders.weights_and_pooling`."""
        if self._functions.spec_of(name) is not None:
            local = self._functions.local(name)
            if local is not None:
                return self.weights_and_pooling(local)
            function = self._functions.get(name, trusted=False)
            return None if function is None else (self._around(function).identity.weights, "")
        wrapper = self._wrappers.find(name)
        if wrapper is not None:
            return wrapper.digest, ""
        try:
            found = find_here(name, self._path)
        except NoModelError:
            return None
        return self._weights_and_pooling(found) if found else None

    def _weights_and_pooling(self, found: Found) -> tuple[str, str]:
        key = found, state(found.path)
        if key not in self._digests:
            with _malformed(found):
                description = describe(found.path, found.name, found.revision)
                self._digests[key] = _checked_digest(found, description), description.pooling
        self._seen[self._digests[key]] = found
        return self._digests[key]

    @cached_property
    def vector_cache(self) -> VectorCache | None:
        """See `Encoders.vector_cache`."""
        # Most users have no provider, and do without SQLite.
        from jammi_duck.encoder.vector_cache import VectorCache

        return VectorCache(self._vectors_path) if self._vectors_path else None

    def secret(self, url: str) -> str | None:
        """See `Encoders.secret`."""
        return self._find_secret(url)

    def use_secrets(self, find: Callable[[str], str | None]) -> None:
        """See `Encoders.use_secrets`."""
        self._find_secret = find

    def _around(self, function: EmbeddingFunction) -> Encoder:
        """The encoder around a function."""
        if function.is_local:
            # What it means may be another model by now.
            return function.encoder(self)
        before, encoder = self._encoders.get(function.spec, (None, None))
        if encoder is None or before is not function:
            encoder = function.encoder(self)
            self._encoders[function.spec] = function, encoder
        return encoder

    def _loaded_from(self, found: Found) -> Encoder:
        encoder = self._shared(found, self._load)
        self._seen[encoder.identity.weights, encoder.identity.pooling] = found
        return self._reading(encoder) if encoder.takes_images else encoder

    def _shared(self, found: Found, load: Callable[[Found], M]) -> M:
        """What `load` makes of a model; the process keeps it for all who ask for the same."""
        # A directory may hold another model by now.
        is_now = state(found.path) if found.is_local else None
        key = (load.__name__, found, is_now, self._batch_size, self._options, os.environ.get(library.VARIABLE))
        with _sharing:
            loading = _loading.setdefault(key, threading.Lock())
        # Only callers that need this model wait while it is loaded.
        with loading:
            model: M | None = _loaded.get(key)
            if model is None:
                with _malformed(found):
                    model = load(found)
            with _sharing:
                _loaded[key] = model
                _loaded.move_to_end(key)
                while len(_loaded) > self._most_loaded:
                    _loaded.popitem(last=False)
        return model

    def _load(self, found: Found) -> Encoder:
        description = describe(found.path, found.name, found.revision)
        # Hashing takes as long as loading, so it runs on another core.
        weights = beside(lambda: _checked_digest(found, description))
        encoder = self._computing(description)
        encoder.description = dataclasses.replace(encoder.description, weights=weights.result())
        encoder.identity = encoder.description.identity
        return encoder

    def _computing(self, description: ModelDescription) -> LocalEncoder:
        from jammi_duck.encoder.static.description import StaticDescription

        if isinstance(description, StaticDescription):
            from jammi_duck.encoder.static.encoder import StaticEncoder

            return StaticEncoder(description)
        from jammi_duck.encoder.images.clip_description import ClipDescription

        if isinstance(description, ClipDescription):
            # First, since it says who needs torch, where that is not installed.
            place = self._engines.for_pictures(description)
            from jammi_duck.encoder.images.clip_encoder import ClipEncoder

            return ClipEncoder(description, *place, self._batch_size)
        # The tokenizer is read while the engine packs the weights.
        tokenizer = beside(lambda: _tokenizer(description))
        computing = self._engines.for_texts(description)
        from jammi_duck.encoder.local.transformer import TransformerEncoder

        return TransformerEncoder(description, tokenizer.result(), *computing, self._batch_size)

    def _reading(self, encoder: Encoder) -> Encoder:
        """An encoder that all installations share, but which reads pictures only where this one may."""
        from jammi_duck.encoder.images.clip_encoder import ClipEncoder

        return encoder.reading(self._images) if self._images and isinstance(encoder, ClipEncoder) else encoder

    def _load_reranker(self, found: Found) -> Reranker:
        description = describe_cross_encoder(found.path, found.name, found.revision)
        from jammi_duck.encoder.local.cross_encoder import CrossEncoder

        return CrossEncoder(description, *self._engines.for_pairs(description), self._batch_size)

    def takes_images(self, name: str) -> bool:
        """See `Encoders.takes_images`."""
        with contextlib.suppress(ModelError):
            function = self._functions.get(name)
            if function is not None:
                return function.takes_images(self)
            if self._wrappers.find(name) is None:
                return is_clip((self._found.get(name) or find(name, self._path)).path)
        return False

    def names(self, name: str) -> set[str]:
        """See `Encoders.names`."""
        spec = self._functions.spec_of(name)
        if spec is not None:
            local = self._functions.local(name)
            return {name, str(spec)} | (set() if local is None else self.names(local))
        if self._wrappers.find(name) is not None:
            return {name}
        folder = find_folder(name, self._path)
        paths = [Path(name).expanduser().resolve(), *([folder.path] if folder else [])]
        return {name, full_name(name), *map(str, paths)}

    def available(self, default: str) -> list[ModelRow]:
        """See `Encoders.available`."""
        return [*(each.row(self._engines) for each in listed(default, self._path)), *self._functions.rows()]


@contextlib.contextmanager
def _malformed(found: Found) -> Iterator[None]:
    """Turn any error that a malformed directory causes into a ModelError."""
    try:
        yield
    except (JammiError, MemoryError, ImportError):
        raise
    except BaseException as error:
        # tokenizers is written in Rust; its panics are not subclasses of Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = f"{type(error).__name__}: {error}"
        raise ModelError(
            f"the model '{found.name}' cannot be loaded from '{found.path}': {reason}; a file there is malformed"
        ) from error


def _computes(encoder: Encoder, wanted: tuple[str, str]) -> bool:
    """Whether an encoder has these weights and this pooling."""
    return (encoder.identity.weights, encoder.identity.pooling) == wanted


def _tokenizer(description: ModelDescription) -> CuttingTokenizer:
    from jammi_duck.encoder.local.tokens import CuttingTokenizer

    # Python must not end while it is read, which is not written in C.
    with at_work():
        tokenizer = CuttingTokenizer(description)
        _ = tokenizer.highest_id
    return tokenizer


def _checked_digest(found: Found, description: ModelDescription) -> str:
    verify(found)
    return weights_digest(description)
