"""Texts as numbers: all in one array, with where each begins; no Python object per row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainmaster_trainer.data.order import Indices

MULTIPLE = 8
"""A batch is padded to a multiple of this: fewer shapes, and full tiles of a GPU's matrix units."""
Numbers = npt.NDArray[np.int64]


def smallest(vocabulary: int) -> type[np.unsignedinteger]:
    """Return the smallest type that holds the tokens of a vocabulary."""
    return np.uint16 if vocabulary <= 2**16 else np.uint32


@dataclass(frozen=True)
class Tokens:
    """The tokens of many texts, one after the other.

    Attributes:
        values: Their numbers, in the smallest type that holds the vocabulary.
        offsets: Where the tokens of each text begin, and where the last ends: int64 of (texts + 1,).
    """

    values: npt.NDArray[np.unsignedinteger]
    offsets: Numbers

    @classmethod
    def joined(cls, parts: Sequence[Tokens], vocabulary: int) -> Tokens:
        """Return the texts of several parts as one."""
        kind = smallest(vocabulary)
        values = np.concatenate([np.zeros(0, kind), *(part.values.astype(kind, copy=False) for part in parts)])
        lengths = np.concatenate([np.zeros(1, np.int64), *(part.lengths for part in parts)])
        return cls(values, np.cumsum(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Numbers:
        """Return the number of tokens of each text."""
        return np.diff(self.offsets)

    def flat(self, rows: Indices) -> tuple[npt.NDArray[np.unsignedinteger], Numbers]:
        """Return the tokens of texts one after the other, and where each text begins in them."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        starts = np.cumsum(lengths) - lengths
        return self.values[np.repeat(self.offsets[rows] - starts, lengths) + np.arange(lengths.sum())], starts

    def padded(self, rows: Indices, most: int) -> Tensor:
        """Return texts side by side, int64 of (n, longest); 0 behind the end of each.

        Args:
            rows: Their numbers.
            most: Largest width; no text is longer.
        """
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        longest = int(lengths.max(initial=1))
        width = min(most, -(-longest // MULTIPLE) * MULTIPLE)
        places = np.arange(width)
        is_token = places < lengths[:, None]
        out = np.zeros((len(rows), width), np.int64)
        out[is_token] = self.values[(starts[:, None] + places)[is_token]]
        return torch.from_numpy(out)
