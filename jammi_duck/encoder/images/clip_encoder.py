"""The encoder of a CLIP model: pictures and texts to vectors in one space."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
import torch

from jammi_duck.config.logs import log
from jammi_duck.encoder import Encoder, Encodings
from jammi_duck.encoder.blobs import is_picture, shown
from jammi_duck.encoder.description import ModelDescription
from jammi_duck.encoder.images.clip_description import ClipDescription
from jammi_duck.encoder.images.clip_weights import OPEN_CLIP, TRANSFORMERS
from jammi_duck.encoder.images.pictures import Pictures
from jammi_duck.encoder.images.places import PictureLimits
from jammi_duck.encoder.images.towers import TextTower, VisionTower
from jammi_duck.encoder.local.batching import Numbered, Passes, TokenBudget
from jammi_duck.encoder.local.engine import is_out_of_memory
from jammi_duck.encoder.local.tokens import CuttingTokenizer
from jammi_duck.encoder.local.transformer import TransformerEncoder
from jammi_duck.encoder.local.workers import Workers
from jammi_duck.encoder.torch_engine.engine import Parts, TorchEngine, precision_of, tokens_of_pass
from jammi_duck.encoder.torch_engine.linear import Placement
from jammi_duck.encoder.torch_engine.threads import use_cores
from jammi_duck.encoder.torch_engine.weights import Weights
from jammi_duck.errors import EncodingError, InputError, ModelError
from jammi_duck.threads import Task, Threads
from jammi_duck.types import Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jammi_duck.types import Vectors

# So many pictures are read at a time, and so many of these beside each other: a server may be far away.
_CHUNK, _AT_ONCE = 32, 8
_SECONDS_BETWEEN_LOOKS = 0.1
_NO_VECTOR = "there is not enough memory for it even alone, or the model's numbers for it overflow"


@dataclass(frozen=True)
class _Pixels:
    """A picture as the model takes it, which has so many tokens."""

    values: NDArray[np.float32]
    tokens: int

    def __len__(self) -> int:
        """As of a sequence of tokens."""
        return self.tokens


class ClipEncoder(Encoder):
    """See `jammi_duck.encoder.LocalEncoder`. A document is a picture; a query is a text, or a picture in a text."""

    takes_images = True
    # Of one stream.
    budget: TokenBudget | None = None

    def __init__(
        self,
        description: ClipDescription,
        placement: Placement,
        workers: Workers,
        at_once: int | None,
        batch_size: int,
        limits: PictureLimits = PictureLimits(),  # noqa: B008 - it cannot change
    ) -> None:
        """Load the model. `batch_size` texts of full length, or pictures, fit one forward pass.

        `at_once` passes run or wait for a thread; None is one more than the `workers` have threads.

        Raises:
            ModelError: the tokenizer or the weights cannot be read, or do not fit each other or the configuration.
        """
        precision = precision_of(placement)
        self.description: ModelDescription = dataclasses.replace(description, precision=precision)
        self.identity = self.description.identity
        self.dimensions = description.dimensions
        self._pictures = Pictures(limits)
        self._preprocessing = description.preprocessing
        self._picture_tokens = description.picture_tokens
        self._workers = workers
        self._at_once = at_once or workers.threads + 1
        self._pass_tokens = min(batch_size * description.picture_tokens, tokens_of_pass(placement))
        of_text, of_vision = OPEN_CLIP if description.format == "open_clip" else TRANSFORMERS
        weights = Weights(description.path, description.name, description.weights_file)

        def text_parts() -> Parts:
            tower = TextTower(description, of_text, weights, placement)
            return tower, lambda vectors, *_: vectors, description.text.products

        # On one core: the many small steps take several times as long if cores have to wait for each other.
        engine = workers.submit(lambda: TorchEngine(description, placement, text_parts)).result()
        tokenizer = CuttingTokenizer(description)
        self._texts = TransformerEncoder(description, tokenizer, engine, workers, at_once, batch_size)

        def vision() -> VisionTower:
            use_cores()
            return VisionTower(description, of_vision, weights, placement)

        self._vision = workers.submit(vision).result()
        size = description.image_size
        black = _Pixels(np.zeros((3, size, size), np.float32), self._picture_tokens)
        # Damaged weights cause an error now, not in the middle of a build.
        if not np.isfinite(workers.submit(lambda: self._forward([black])).result()).all():
            raise ModelError(f"the vectors of '{description.name}' are not numbers (NaN): its weights are damaged")

    def reading(self, limits: PictureLimits) -> ClipEncoder:
        """The same model, which reads pictures within these limits."""
        mine = copy.copy(self)
        mine._pictures = Pictures(limits)
        return mine

    def stream(self) -> ClipEncoder:
        """See `Encoder.stream`."""
        mine = copy.copy(self)
        mine.budget = TokenBudget(self._pass_tokens)
        return mine

    def encode(self, texts: Sequence[str], role: Role = "document") -> Vectors:
        """See `Encoder.encode`."""
        if role == "query" and not any(map(is_picture, texts)):
            return self._texts.encode(texts, role)
        encodings = self.encode_rows(texts, role, lambda _: None)
        for place in np.flatnonzero(encodings.failed).tolist():
            reason = encodings.reasons.get(place, _NO_VECTOR)
            is_named = role == "document" and not is_picture(texts[place])
            advice = "; if it is no picture but a text, embed it with role := 'query'" if is_named else ""
            raise EncodingError(f"{shown(texts[place])} could not be embedded: {reason}{advice}")
        return encodings.vectors

    def encode_rows(self, texts: Sequence[str], role: Role, progress: Callable[[int], None]) -> Encodings:
        """See `Encoder.encode_rows`. Equal texts are encoded once."""
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        said = [text for text in places if role == "query" and not is_picture(text)]
        others = set(said)
        seen = [text for text in places if text not in others]
        done = _Done(len(places), self.dimensions)
        if said:
            done.put([places[text] for text in said], self._texts.encode_rows(said, role, progress))
        if seen:
            done.put([places[text] for text in seen], self._encoded(seen, progress))
        return done.of([places[text] for text in texts])

    def _encoded(self, texts: Sequence[str], progress: Callable[[int], None]) -> Encodings:
        """The vectors of pictures."""
        done = _Done(len(texts), self.dimensions)

        def start(pictures: Sequence[_Pixels], landed: SimpleQueue[Task[Vectors]]) -> Task[Vectors]:
            return self._workers.submit(lambda: self._forward(pictures), spread=len(texts) == 1, landed=landed)

        budget = self.budget or TokenBudget(self._pass_tokens)
        passes = Passes(start, done.vectors, budget, is_out_of_memory, at_once=self._at_once)
        passes.run(self._read(texts, done.reasons, progress), progress)
        for place in np.flatnonzero(passes.failed | ~np.isfinite(done.vectors).all(1)).tolist():
            done.reasons.setdefault(place, _NO_VECTOR)
        failed = list(done.reasons)
        done.vectors[failed], done.failed[failed] = 0, True
        if failed:
            first = failed[0]
            log.warning(
                "%d pictures failed; the first is %s: %s", len(failed), shown(texts[first]), done.reasons[first]
            )
        return done.of(range(len(texts)))

    def _read(
        self, texts: Sequence[str], reasons: dict[int, str], progress: Callable[[int], None]
    ) -> Iterator[list[Numbered[_Pixels]]]:
        """The pixels of pictures, some at a time, while others are in the model; `reasons` gets those that fail."""
        readers = Threads(min(len(texts), _AT_ONCE), "jammi-pictures")
        try:
            for start in range(0, len(texts), _CHUNK):
                numbers = range(start, min(start + _CHUNK, len(texts)))
                landed: SimpleQueue[Task[Vectors]] = SimpleQueue()
                work = (partial(self._pictures.pixels, texts[i], self._preprocessing) for i in numbers)
                tasks = [Task(each, landed) for each in work]
                for task in tasks:
                    readers.start(task)
                left = len(tasks)
                while left:
                    try:
                        landed.get(timeout=_SECONDS_BETWEEN_LOOKS)
                        left -= 1
                    except Empty:
                        progress(0)
                chunk = []
                for i, task in zip(numbers, tasks, strict=True):
                    try:
                        chunk.append((i, _Pixels(task.result(), self._picture_tokens)))
                    except InputError as error:
                        reasons[i] = str(error)
                progress(len(numbers) - len(chunk))
                yield chunk
        finally:
            # Whoever is interrupted does not wait for a server.
            readers.close()

    def _forward(self, pictures: Sequence[_Pixels]) -> Vectors:
        """One pass."""
        use_cores()
        with torch.inference_mode():
            pixels = torch.from_numpy(np.stack([each.values for each in pictures]))
            vectors: Vectors = self._vision(pixels).cpu().numpy()
        return vectors


class _Done:
    """What became of texts and pictures so far."""

    def __init__(self, count: int, dimensions: int) -> None:
        self.vectors: Vectors = np.zeros((count, dimensions), np.float32)
        self.truncated: NDArray[np.bool_] = np.zeros(count, np.bool_)
        self.failed: NDArray[np.bool_] = np.zeros(count, np.bool_)
        self.reasons: dict[int, str] = {}

    def put(self, places: Sequence[int], encodings: Encodings) -> None:
        """What became of those at these places."""
        self.vectors[places] = encodings.vectors
        self.truncated[places] = encodings.truncated
        self.failed[places] = encodings.failed
        self.reasons.update((places[i], reason) for i, reason in encodings.reasons.items())

    def of(self, places: Sequence[int]) -> Encodings:
        """Those at these places, which may be repeated."""
        reasons = {i: self.reasons[place] for i, place in enumerate(places) if place in self.reasons}
        return Encodings(self.vectors[places], self.truncated[places], self.failed[places], reasons)
