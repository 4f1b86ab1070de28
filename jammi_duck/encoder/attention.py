"""Attention over sequences of one length: no padding, no mask."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG2E = math.log2(math.e)
_LN2 = math.log(2)
# Above this length, a matrix of all scores takes more time and memory than torch's own blockwise attention.
_LONGEST_DENSE = 1024
# A row's sum of powers of two within these bounds tells that none of them has overflown or lost its precision.
_LOWEST_SUM, _HIGHEST_SUM = 2.0**-60, 2.0**100


def query_scale(head_size: int) -> float:
    """What the queries' weights and biases are multiplied by when a model is loaded.

    With 1/sqrt(d) and log2(e) in the weights, the softmax of the scores is 2^score over its sum.
    """
    return LOG2E / math.sqrt(head_size)


def attend(qkv: Tensor, count: int, length: int, heads: int, out: Tensor, bias: Tensor | None = None) -> None:
    """Attention within each of `count` sequences of `length` tokens.

    `qkv` is [count * length, 3 * hidden], queries scaled by `query_scale`; `bias`, in the scores' base 2, is added to
    them: [1 or heads, length, length]. The result goes to `out`, [count * length, hidden].
    """
    size = qkv.shape[1] // (3 * heads)
    split = qkv.view(count, length, 3, heads, size)
    target = out.view(count, length, heads, size)
    if qkv.dtype == torch.bfloat16 and qkv.device.type == "cpu" and length <= _LONGEST_DENSE:
        q, k, v = split.permute(2, 0, 3, 1, 4).contiguous().view(3, count * heads, length, size).unbind()
        mixed, sums = _by_powers_of_two(q, k, v, bias)
        mixed, sums = (part.view(count, heads, length, -1).transpose(1, 2) for part in (mixed, sums))
        torch.div(mixed, sums, out=target)
    else:
        q, k, v = (split[:, :, part].transpose(1, 2) for part in range(3))
        mask = None if bias is None else (bias * _LN2).to(q.dtype).expand(count, heads, length, length)
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=_LN2)
        target.copy_(mixed.transpose(1, 2))


def _by_powers_of_two(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention of [sequences, length, size] in bfloat16: weighted sums, and the sums of the weights to divide by.

    torch's softmax takes longer than all the rest. So the weights are plain powers of two, without each row's maximum
    taken off first, and are computed again with it where a sum shows that this was needed; trained models' scores are
    far from it.
    """
    scores = torch.bmm(q, k.transpose(1, 2))
    if bias is not None:
        scores.view(-1, bias.shape[0], *bias.shape[1:]).add_(bias)
    weights = torch.exp2(scores)
    sums = weights.sum(-1, keepdim=True)
    lowest, highest = torch.aminmax(sums.float())
    if not (lowest > _LOWEST_SUM and highest < _HIGHEST_SUM):
        weights = torch.exp2(scores.float() - scores.amax(-1, keepdim=True).float()).to(scores.dtype)
        sums = weights.sum(-1, keepdim=True)
    return torch.bmm(weights, v), sums
