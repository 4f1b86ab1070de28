"""Token sequences side by side in one flat tensor, without padding between them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jammi_duck.encoder.local.engine import Tokens


@dataclass(frozen=True)
class Group:
    """`count` sequences of `length` tokens each, from row `start` on."""

    start: int
    count: int
    length: int

    @property
    def rows(self) -> slice:
        """Their rows in a tensor of [rows, ...]."""
        return slice(self.start, self.start + self.count * self.length)


@dataclass(frozen=True)
class Batch:
    """The input of one forward pass: `ids` is [rows]; rows after the last group only round up their number.

    `types` is the token type of each row, for models that tell the two texts of a pair apart by it; None is all zeros.
    """

    ids: Tensor
    groups: tuple[Group, ...]
    types: Tensor | None = None

    def positions(self) -> Tensor:
        """The place of each token in its sequence, [rows]."""
        places = np.zeros(len(self.ids), np.int64)
        for group in self.groups:
            places[group.rows].reshape(group.count, group.length)[:] = np.arange(group.length)
        return torch.from_numpy(places).to(self.ids.device)

    def firsts(self) -> tuple[Tensor, Batch]:
        """The row of each sequence's first token, and a batch with only these tokens."""
        starts = [torch.arange(group.start, group.rows.stop, group.length) for group in self.groups]
        rows = torch.cat(starts).to(self.ids.device)
        return rows, Batch(self.ids[rows], (Group(0, len(rows), 1),))


def pack(sequences: Sequence[Tokens], device: torch.device, types: Sequence[Tokens] | None = None) -> Batch:
    """Concatenate sequences, and the token types of each; consecutive sequences of equal length form a group."""
    groups, start = [], 0
    for length, equal in itertools.groupby(map(len, sequences)):
        group = Group(start, sum(1 for _ in equal), length)
        groups.append(group)
        start = group.rows.stop
    return Batch(_flat(sequences, start, device), tuple(groups), None if types is None else _flat(types, start, device))


def _flat(sequences: Sequence[Tokens], length: int, device: torch.device) -> Tensor:
    """All numbers of the sequences, `length` together, [rows]."""
    numbers = np.zeros(_rounded(length), np.int64)
    numbers[:length] = np.fromiter(itertools.chain.from_iterable(sequences), np.int64, length)
    return torch.from_numpy(numbers).to(device)


def each_group(hidden: Tensor, batch: Batch) -> Iterator[Tensor]:
    """The rows of each group, [count, length, size]."""
    for group in batch.groups:
        yield hidden[group.rows].view(group.count, group.length, -1)


def _rounded(rows: int) -> int:
    """Round up, to get few different numbers of rows: oneDNN takes milliseconds to build a kernel for a new one."""
    step = 2 if rows <= 32 else 8 if rows <= 256 else 64
    return -(-rows // step) * step
