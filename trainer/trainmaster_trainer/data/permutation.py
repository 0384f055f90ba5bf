"""A random order of many rows whose any part is computed by itself: a keyed bijection of 0 .. n-1.

numpy's permutation of 10 million rows takes half a second and 80 MB, at each resume and each epoch. This is a Feistel
network over the next even number of bits, with cycle walking for the numbers that are not below n (Black and Rogaway,
"Ciphers with arbitrary finite domains", 2002); its round function is the finaliser of SplitMix64. It is no
cryptography, and needn't be.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ROUNDS = 6
_Words = npt.NDArray[np.uint64]


class Permutation:
    """A permutation of 0 .. n-1.

    Args:
        n: Number of elements, at least 1.
        seed: Numbers that choose the permutation.
    """

    def __init__(self, n: int, seed: list[int]) -> None:
        self.n = n
        self._half = np.uint64(max(1, -(-(n - 1).bit_length() // 2)))
        self._mask = np.uint64((1 << int(self._half)) - 1)
        self._keys = np.random.SeedSequence(seed).generate_state(ROUNDS, np.uint64)

    def __call__(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the elements at positions, int64 of (n,)."""
        found = self._encrypted(positions.astype(np.uint64))
        outside = np.flatnonzero(found >= self.n)
        while len(outside):  # at most three of four numbers are outside, so a few times
            found[outside] = self._encrypted(found[outside])
            outside = outside[found[outside] >= self.n]
        return found.astype(np.int64)

    def _encrypted(self, values: _Words) -> _Words:
        left, right = values >> self._half, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & self._mask)
        return (left << self._half) | right


def _mixed(words: _Words) -> _Words:
    """Return the words with every bit depending on all bits of its word (SplitMix64's finaliser)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
