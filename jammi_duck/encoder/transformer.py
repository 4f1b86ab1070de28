"""A model of the transformers library as an Encoder: tokenize, forward, pool, normalise."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import Tokenizer, normalizers

from jammi_duck.encoder import Encodings, TokenBudget
from jammi_duck.encoder.batching import Tokens, encode_in_batches
from jammi_duck.encoder.description import ModelDescription
from jammi_duck.errors import EncodingError, ModelError
from jammi_duck.types import Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jammi_duck.types import Vectors

# All forward passes of the process run on this one thread: torch keeps a pool of threads for each thread that calls it.
_inference = ThreadPoolExecutor(max_workers=1, thread_name_prefix="jammi-inference")


class TransformerEncoder:
    """See `jammi_duck.encoder.Encoder`."""

    def __init__(self, description: ModelDescription, batch_size: int) -> None:
        """Load the model on the CPU in float32. `batch_size` texts of full length fit one forward pass.

        Raises:
            ModelError: the tokenizer or the weights cannot be read, or are of no supported architecture.
        """
        self.description = description
        self._batch_tokens = batch_size * description.max_tokens
        self._tokenizer = _load_tokenizer(description)
        self._tokenizing = threading.Lock()
        self._pad = _pad_token(self._tokenizer)
        self._model = _inference.submit(_load_model, description).result()

    def budget(self) -> TokenBudget:
        """See `Encoder.budget`."""
        return TokenBudget(self._batch_tokens)

    def encode(self, texts: Sequence[str], role: Role = "document") -> Vectors:
        """See `Encoder.encode`."""
        encodings = self.encode_rows(texts, role, self.budget(), lambda _: None)
        if encodings.failed.any():
            text = texts[int(encodings.failed.argmax())]
            raise EncodingError(
                f"not enough memory to embed even alone the text '{text[:40]}' of {len(text)} characters"
            )
        return encodings.vectors

    def encode_rows(
        self, texts: Sequence[str], role: Role, budget: TokenBudget, progress: Callable[[int], None]
    ) -> Encodings:
        """See `Encoder.encode_rows`. Equal texts are encoded once."""
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        sequences, cut = self._tokenize(list(places), role)
        stopped = threading.Event()

        def progress_until_stopped(done: int) -> None:
            progress(done)
            if stopped.is_set():
                raise EncodingError("encoding was interrupted")

        work = _inference.submit(
            encode_in_batches,
            sequences,
            self._forward,
            self.description.dimensions,
            budget,
            _is_out_of_memory,
            progress_until_stopped,
        )
        try:
            vectors, failed = work.result()
        except BaseException:
            stopped.set()
            raise
        rows = np.fromiter((places[text] for text in texts), np.intp, len(texts))
        return Encodings(vectors[rows], cut[rows], failed[rows])

    def _tokenize(self, texts: Sequence[str], role: Role) -> tuple[list[Tokens], NDArray[np.bool_]]:
        prompt = self.description.prompt(role)
        with self._tokenizing:
            encodings = self._tokenizer.encode_batch_fast([prompt + text for text in texts] if prompt else texts)
        cut = np.fromiter((bool(encoding.overflowing) for encoding in encodings), np.bool_, len(texts))
        return [encoding.ids for encoding in encodings], cut

    def _forward(self, sequences: Sequence[Tokens]) -> Vectors:
        longest = max(len(tokens) for tokens in sequences)
        ids = torch.full((len(sequences), longest), self._pad, dtype=torch.long)
        mask = torch.zeros((len(sequences), longest), dtype=torch.long)
        for row, tokens in enumerate(sequences):
            ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
            mask[row, : len(tokens)] = 1
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
            pooled = _POOLING[self.description.pooling](hidden.float(), mask)
            vectors: Vectors = torch.nn.functional.normalize(pooled, dim=1).numpy()
        return vectors


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over unmasked tokens, as sentence-transformers' Pooling computes it (clamp 1e-9)."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def _cls(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The first unmasked token; ours are padded on the right, so it is the first."""
    return hidden[:, 0]


_POOLING = {"mean": _mean, "cls": _cls}


def _load_tokenizer(description: ModelDescription) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(description.path / "tokenizer.json"))
    except Exception as error:
        raise ModelError(f"the tokenizer of '{description.name}' cannot be read: {error}") from error
    # What tokenizer.json says of truncation and padding belongs to its training, not to the model.
    tokenizer.no_padding()
    tokenizer.enable_truncation(description.max_tokens, strategy="longest_first")
    if description.lower_case:
        lower = normalizers.Lowercase()
        tokenizer.normalizer = normalizers.Sequence([lower, tokenizer.normalizer]) if tokenizer.normalizer else lower
    return tokenizer


def _pad_token(tokenizer: Tokenizer) -> int:
    for token in ("[PAD]", "<pad>"):
        number = tokenizer.token_to_id(token)
        if number is not None:
            return int(number)
    return 0


def _load_model(description: ModelDescription) -> Any:  # noqa: ANN401 - transformers' models have no common type
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        model, report = transformers.AutoModel.from_pretrained(
            description.path,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        raise ModelError(f"the model '{description.name}' cannot be loaded: {error}") from error
    missing = [key for key in report["missing_keys"] if "pooler" not in key]
    if missing or report["mismatched_keys"]:
        wrong = ", ".join(map(str, [*missing, *report["mismatched_keys"]][:3]))
        raise ModelError(f"the weights of '{description.name}' do not fit its config.json: {wrong}")
    return model.eval()


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
