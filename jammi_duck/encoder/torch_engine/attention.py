"""Attention over sequences of equal length: without padding, and with a mask only for local attention."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

LOG2E = math.log2(math.e)
_LN2 = math.log(2)
# Above this length, a matrix of all scores takes more time and memory than torch's own blockwise attention.
_LONGEST_DENSE = 1024
# If a row's sum of powers of two is within these bounds, none of them has overflowed or lost its precision.
_LOWEST_SUM, _HIGHEST_SUM = 2.0**-60, 2.0**100


def query_scale(head_size: int) -> float:
    """The factor for the queries' weights and biases, applied when a model is loaded.

    With 1/sqrt(d) and log2(e) in the weights, the softmax of the scores is 2^score over its sum.
    """
    return LOG2E / math.sqrt(head_size)


def attend(
    qkv: Tensor,
    count: int,
    length: int,
    heads: int,
    out: Tensor,
    *,
    bias: Tensor | None = None,
    reach: int | None = None,
) -> None:
    """Attention within each of `count` sequences of `length` tokens.

    `qkv` is [count * length, 3 * hidden], queries scaled by `query_scale`; `bias`, in the scores' base 2, is added to
    them: [heads, length, length]. With a `reach`, a token attends only to tokens at most
    that far away, and there is no `bias`. The result goes to `out`, [count * length, hidden].
    """
    size = qkv.shape[1] // (3 * heads)
    parts = qkv.view(count, length, 3, heads, size).permute(2, 0, 3, 1, 4)
    q, k, v = parts.unbind()
    target = out.view(count, length, heads, size).transpose(1, 2)
    if reach is None or length <= reach + 1:
        _average(q, k, v, bias, target)
    elif length <= 4 * reach:
        _average(q, k, v, _window(length, reach, qkv.dtype, qkv.device), target)
    else:
        _average_nearby(parts, reach, target)


def _average_nearby(parts: Tensor, reach: int, target: Tensor) -> None:
    """As `_average` with a window, in blocks of queries with the keys within reach: linear in the length."""
    _, count, heads, length, size = parts.shape
    block = 2 * reach
    blocks = -(-length // block)
    padded = torch.nn.functional.pad(parts, (0, 0, reach, reach + blocks * block - length))
    spans = padded.reshape(3, count * heads, -1, size).unfold(2, block + 2 * reach, block).transpose(3, 4)
    queries = spans[0, :, :, reach : reach + block]
    found = torch.empty_like(queries)
    bias = _windows(length, reach, parts.dtype, parts.device)
    _average(queries, spans[1], spans[2], bias, found)
    target.copy_(found.reshape(count, heads, blocks * block, size)[:, :, :length])


def _average(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, target: Tensor) -> None:
    """Softmax attention of [outer, inner, tokens, size], with a bias of [1 or inner, queries, keys], into `target`."""
    outer, inner, queries, size = q.shape
    keys = k.shape[2]
    if q.dtype == torch.bfloat16 and q.device.type == "cpu" and keys <= _LONGEST_DENSE:
        room = (_rounded_count(outer), inner, _rounded_length(queries), size)
        key_room = (*room[:2], _rounded_length(keys), size)
        if bias is not None:
            bias = torch.nn.functional.pad(bias, (0, key_room[2] - keys, 0, room[2] - queries))
        sums, total = _by_powers_of_two(_filling(q, room), _filling(k, key_room), _filling(v, key_room), bias, keys)
        sums, total = (part.view(*room[:3], -1)[:outer, :, :queries] for part in (sums, total))
        torch.div(sums, total, out=target)
    else:
        mask = None if bias is None else (bias * _LN2).to(q.dtype).expand(outer, inner, queries, keys)
        target.copy_(torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=_LN2))


def _rounded_count(count: int) -> int:
    """Round, to get few different sizes: oneDNN keeps a kernel of half a megabyte for each of the last thousand."""
    step = 1 << max(0, count.bit_length() - 3)
    return -(-count // step) * step


def _rounded_length(length: int) -> int:
    return length if length <= 16 else -(-length // 16) * 16


def _filling(part: Tensor, room: tuple[int, int, int, int]) -> Tensor:
    """Zeros of that shape with `part` in the corner; the first two dimensions are merged."""
    if part.shape != room:
        zeros = part.new_zeros(room)
        zeros[: part.shape[0], :, : part.shape[2]] = part
        part = zeros
    return part.reshape(-1, *room[2:])


def _by_powers_of_two(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, keys: int) -> tuple[Tensor, Tensor]:
    """Attention of [n, tokens, size] in bfloat16: weighted sums, and the sums of the weights to divide them by.

    Keys from number `keys` on have no weight.

    torch's softmax takes longer than all the rest. So the weights are plain powers of two, without subtracting the
    maximum of each row first. If a sum shows that this was needed, which is rare, they are computed again with it.
    """
    scores = _scores(q, k, bias).exp2_()
    scores[:, :, keys:] = 0
    total = scores.sum(-1, keepdim=True)
    lowest, highest = torch.aminmax(total)
    if not (lowest.item() > _LOWEST_SUM and highest.item() < _HIGHEST_SUM):
        scores = _scores(q, k, bias).float()
        scores = scores.sub_(scores.amax(-1, keepdim=True)).exp2_().to(q.dtype)
        scores[:, :, keys:] = 0
        total = scores.sum(-1, keepdim=True)
    return torch.bmm(scores, v), total


def _scores(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    scores = torch.bmm(q, k.transpose(1, 2))
    if bias is not None:
        scores.view(-1, *bias.shape).add_(bias)
    return scores


@functools.lru_cache(maxsize=64)
def _window(length: int, reach: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The bias that excludes tokens beyond the reach of each token, [1, length, length]."""
    place = torch.arange(length, device=device)
    far = (place[None, :] - place[:, None]).abs() > reach
    return torch.zeros(1, length, length, dtype=dtype, device=device).masked_fill_(far, -math.inf)


@functools.lru_cache(maxsize=8)
def _windows(length: int, reach: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The bias of each block in `_average_nearby`, [blocks, 2 * reach, 4 * reach]."""
    block = 2 * reach
    blocks = -(-length // block)
    first = torch.arange(blocks, device=device)[:, None, None] * block
    query = first + torch.arange(block, device=device)[:, None]
    key = first + torch.arange(block + 2 * reach, device=device) - reach
    unseen = ((query - key).abs() > reach) | (key < 0) | (key >= length)
    # Rows that only fill the last block attend to everything, so that their sums are not zero.
    unseen &= query < length
    return torch.zeros(unseen.shape, dtype=dtype, device=device).masked_fill_(unseen, -math.inf)
