"""The encoder around a provider: texts are looked up, sent in batches beside each other, and their vectors checked."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from jammi_duck.config.logs import log
from jammi_duck.encoder import Encoder, Encodings, Usage
from jammi_duck.encoder.function_encoder import identity_of
from jammi_duck.encoder.given_vectors import Made, encodings_of
from jammi_duck.encoder.providers.batches import batches
from jammi_duck.encoder.providers.requests import PROBE, Budget, Requests
from jammi_duck.encoder.providers.transport import Begun, network
from jammi_duck.encoder.waits import interruptible, renewed_after_fork
from jammi_duck.errors import EncodingError
from jammi_duck.types import Role

if TYPE_CHECKING:
    from jammi_duck.encoder.providers.remote import RemoteFunction
    from jammi_duck.encoder.vector_cache import VectorCache

T = TypeVar("T")
_SECONDS_BETWEEN_LOOKS = 0.1
# `embed` over more texts than this is told in the log: it may cost.
_MANY = 1000


class Claim:
    """Texts that one thread has under way, by their keys; `made` is what has come of them once it `is_over`.

    What has not been made of them then, others may take.
    """

    def __init__(self) -> None:
        self.made: dict[bytes, Made] = {}
        self.is_over = False
        # Wakes one who waits, who wakes the next.
        self.wake: SimpleQueue[None] = SimpleQueue()

    def wait(self, progress: Callable[[int], None]) -> None:
        """Wait until it is over; `progress` is asked meanwhile, and ends it by raising."""
        while not self.is_over:
            try:
                self.wake.get(timeout=_SECONDS_BETWEEN_LOOKS)
            except Empty:
                progress(0)
        self.wake.put(None)


class Claims:
    """Which texts are under way, so that one that several threads want is sent once."""

    def __init__(self) -> None:
        self._of: dict[bytes, Claim] = {}
        self._sharing = threading.Lock()
        self._released: deque[tuple[Claim, Sequence[bytes]]] = deque()

    def take(self, claim: Claim, keys: Iterable[bytes]) -> tuple[list[bytes], set[Claim]]:
        """The keys that nobody has, which are in this claim from now on, and the claims that have the others."""
        mine, others = [], set()
        with self._sharing:
            for key in keys:
                owner = self._of.get(key)
                if owner is None or owner.is_over:
                    self._of[key] = claim
                    mine.append(key)
                else:
                    others.add(owner)
        return mine, others

    def release(self, claim: Claim, keys: Sequence[bytes]) -> None:
        """Forget a claim that is over, which has these keys at most, and wake who waits for it."""
        claim.wake.put(None)
        self._released.append((claim, keys))
        with self._sharing:
            # Where an interrupt strikes here, whoever comes next goes on.
            while self._released:
                over, its_keys = self._released[0]
                for key in its_keys:
                    if self._of.get(key) is over:
                        del self._of[key]
                self._released.popleft()


class RemoteEncoder(Encoder):
    """Sends texts to a provider. What was answered before is in the cache, if there is one."""

    def __init__(
        self,
        function: RemoteFunction,
        cache: VectorCache | None = None,
        secret: Callable[[str], str | None] = lambda url: None,
    ) -> None:
        """`secret` finds the key for a URL, where neither an argument nor the environment has it."""
        self.function = function
        self.identity = identity_of(function)
        self._cache = cache
        self._secret = secret
        self._claims = Claims()
        self._budget = Budget(function)
        self._measured: int | None = None
        self._is_stream = False
        self._texts_sent = 0
        renewed_after_fork(self)

    def after_fork(self) -> None:
        """What threads of the parent have under way is of no concern to a child."""
        self._claims = Claims()
        self._budget = Budget(self.function)

    @property
    def dimensions(self) -> int:  # type: ignore[override]
        """As the function says, or as long as the vector of a short text is."""
        function = self.function
        known = function.dimensions or function.known_dimensions.get(function.name)
        if known:
            return known
        if self._measured is None:
            probe = {self._key(PROBE, "document"): PROBE}
            self._make(probe, "document", interruptible(lambda _: None), self._measure, dimensions=None)
        assert self._measured is not None
        return self._measured

    def _measure(self, made: Mapping[bytes, Made]) -> None:
        for vector in made.values():
            if isinstance(vector, str):
                raise EncodingError(f"'{self.function.id}' failed: {vector}")
            self._measured = len(vector)

    @property
    def usage(self) -> Usage:
        """See `Encoder.usage`."""
        return Usage(self._budget.requests, self._budget.tokens)

    def stream(self) -> Encoder:
        """See `Encoder.stream`: its requests and tokens are counted, and limited, by themselves."""
        mine = copy.copy(self)
        mine._budget = Budget(self.function)
        mine._is_stream = True
        renewed_after_fork(mine)
        return mine

    def encode_rows(self, texts: Sequence[str], role: Role, progress: Callable[[int], None]) -> Encodings:
        """See `Encoder.encode_rows`."""
        progress = interruptible(progress)
        places: defaultdict[bytes, list[int]] = defaultdict(list)
        reasons: dict[int, str] = {}
        for place, text in enumerate(texts):
            if text.isascii() or _is_unicode(text):
                places[self._key(text, role)].append(place)
            else:
                reasons[place] = "it has half a pair of surrogates, which is no valid text"
        dimensions = self.dimensions
        vectors = np.zeros((len(texts), dimensions), np.float32)

        def take(made: Mapping[bytes, Made]) -> None:
            for key, each in made.items():
                for place in places[key]:
                    if isinstance(each, str):
                        reasons[place] = each
                    else:
                        vectors[place] = each

        wanted = {key: texts[mine[0]] for key, mine in places.items()}
        self._make(wanted, role, progress, take, dimensions)
        return encodings_of(vectors, reasons)

    def _make(
        self,
        left: dict[bytes, str],
        role: Role,
        progress: Callable[[int], None],
        take: Callable[[Mapping[bytes, Made]], None],
        dimensions: int | None,
    ) -> None:
        """Give to `take` what comes of texts: from the cache, the provider, or a thread that has them under way.

        Their vectors have so many `dimensions`; None is for one text, which tells how many these are.
        """

        def settle(made: Mapping[bytes, Made]) -> None:
            mine = {key: each for key, each in made.items() if left.pop(key, None) is not None}
            progress(len(mine))
            take(mine)

        if self._cache:
            settle(self._cache.get(list(left)))
        while left:
            claim, wanted = Claim(), list(left)

            def answered(made: Mapping[bytes, Made], claim: Claim = claim) -> None:
                claim.made |= made
                settle(made)

            try:
                mine, others = self._claims.take(claim, wanted)
                self._ask({key: left[key] for key in mine}, role, progress, answered, dimensions)
            finally:
                # An interrupt may strike wherever a function is called, and so not before this line.
                claim.is_over = True
                self._claims.release(claim, wanted)
            for other in others:
                other.wait(progress)
                settle(other.made)

    def _ask(
        self,
        texts: dict[bytes, str],
        role: Role,
        progress: Callable[[int], None],
        answered: Callable[[Mapping[bytes, Made]], None],
        dimensions: int | None,
    ) -> None:
        """Ask the provider, and tell each of its answers; what is under way is cancelled if nobody waits for it."""
        if not texts:
            return
        requests = self._requests(dimensions)
        ask = requests.first if dimensions is None else requests.embed
        landed: SimpleQueue[Begun[list[Made]]] = SimpleQueue()
        under_way: dict[Begun[list[Made]], list[bytes]] = {}
        ended: EncodingError | None = None
        try:
            for keys in self._batches(texts):
                work = partial(ask, [texts[key] for key in keys], role)
                under_way[network().start(work, landed)] = keys
            for done in _over(landed, len(under_way), progress):
                try:
                    made = dict(zip(under_way[done], done.result(), strict=True))
                except EncodingError as error:
                    # What is under way is paid for: it is waited for, and kept.
                    requests.end(error)
                    ended = ended or error
                    continue
                if self._cache:
                    self._cache.put((key, each) for key, each in made.items() if not isinstance(each, str))
                answered(made)
            if ended:
                raise ended
        finally:
            for each in under_way:
                each.cancel()
        self._tell_many(len(texts))

    def _batches(self, texts: dict[bytes, str]) -> Iterator[list[bytes]]:
        """The keys of each request."""
        keys = list(texts)
        function = self.function
        most = function.most_tokens
        if function.max_tokens is not None:
            # A request reserves some three times what it has: the last of a budget is to be used, too.
            most = min(most, max(function.max_tokens // 24, 1))
        for part in batches(list(texts.values()), function.batch_size or function.most_texts, most):
            yield [keys[place] for place in part]

    def _requests(self, dimensions: int | None) -> Requests:
        function = self.function
        key = function.key()
        if key is None and not function.is_keyless:
            found = self._secret(function.endpoint)
            key = None if found is None else function.clean(found)
        if key is None and function.needs_key and function.endpoint == function.url:
            raise EncodingError(
                f"'{function.id}' needs a key: set {function.key_variables[0]} in the environment, or api_key in "
                f"[providers.{function.id}] of your own jammi.toml"
            )
        return Requests(function, key, dimensions, self._budget)

    def _key(self, text: str, role: Role) -> bytes:
        told = f"{self.identity.weights} {self.function.address()} {role}\0{text}"
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).digest()

    def _tell_many(self, sent: int) -> None:
        """Tell the log of many texts that no build sends."""
        if self._is_stream:
            return
        before, self._texts_sent = self._texts_sent, self._texts_sent + sent
        if before // _MANY != self._texts_sent // _MANY:
            log.warning(
                "embed has sent %d different texts to '%s' so far, %d tokens; jammi_generate would keep their vectors",
                self._texts_sent,
                self.identity.name,
                self._budget.tokens,
            )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _over(landed: SimpleQueue[Begun[T]], count: int, progress: Callable[[int], None]) -> Iterator[Begun[T]]:
    """So many pieces of work as they are over; `progress` is asked meanwhile, and ends it by raising."""
    while count:
        over: list[Begun[T]] = []
        try:
            over.append(landed.get(timeout=_SECONDS_BETWEEN_LOOKS))
            while True:
                over.append(landed.get_nowait())
        except Empty:
            pass
        count -= len(over)
        progress(0)
        # What was answered first: an error ends it all.
        yield from sorted(over, key=lambda each: each.error() is not None)
