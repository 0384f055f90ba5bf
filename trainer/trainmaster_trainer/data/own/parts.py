"""Which split an item of a stream belongs to: a pure function of (split.seed, position)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from trainmaster_api.spec.data import Split

TRAIN, VALIDATION, TEST = 0, 1, 2
BLOCK = 100  # consecutive items of which each split has its share, at random places

_STREAM = 0x0517  # keeps these draws apart from others with the same seed
_GOLDEN = (5**0.5 - 1) / 2
_BLOCKS_AT_ONCE = 10_000


class Parts:
    """Divides the items of a stream: each hundred of them in the shares of the split, at random places.

    Args:
        split: `data.split`.
    """

    def __init__(self, split: Split) -> None:
        self._split = split
        self._start = float(np.random.default_rng([_STREAM, split.seed]).random())
        self._block, self._sides = -1, np.zeros(BLOCK, np.int8)

    def of(self, item: int) -> int:
        """Return the split of an item, by its position in the stream."""
        block, at = divmod(item, BLOCK)
        if block != self._block:
            places = np.random.default_rng([_STREAM, self._split.seed, block]).permutation(BLOCK)
            self._block, self._sides = block, self._divided(np.array([block]))[0][places]
        return int(self._sides[at])

    def count(self, items: int, side: int) -> int:
        """Return how many of the first items belong to a split."""
        blocks, rest = divmod(items, BLOCK)
        total = sum(self.of(item) == side for item in range(blocks * BLOCK, blocks * BLOCK + rest))
        for start in range(0, blocks, _BLOCKS_AT_ONCE):
            chunk = np.arange(start, min(start + _BLOCKS_AT_ONCE, blocks))
            total += int((self._divided(chunk) == side).sum())
        return total

    def _divided(self, blocks: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """Return the split of each place of blocks, (blocks, BLOCK), before the places are shuffled."""
        # The fraction moves from block to block, so shares that are no whole number of a hundred are met in the long
        # run as well: this sequence fills the interval evenly.
        fraction = (self._start + blocks * _GOLDEN) % 1.0
        place = (np.arange(BLOCK) + fraction[:, None]) / BLOCK
        held = self._split.validation + self._split.test
        return np.where(place < self._split.validation, VALIDATION, np.where(place < held, TEST, TRAIN)).astype(np.int8)
