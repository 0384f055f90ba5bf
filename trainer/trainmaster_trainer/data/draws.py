"""Random draws per sample: a pure function of (seed, round, row), whatever worker process makes the sample."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch

_STREAM = 0x5A3D  # keeps these draws apart from those of the order, which has the same seed


class SeedRow(Protocol):
    """Seeds the global generators for a row."""

    def __call__(self, row: int, round_number: int = ..., /) -> None:
        """Seed them; without a round, for that which `seeded` was given."""


def seed_of(seed: int, round_number: int, row: int) -> int:
    """Return the seed of one sample's draws, of 64 bits; for rounds see `Sampler.rounds`."""
    return int(np.random.SeedSequence([_STREAM, seed, round_number, row]).generate_state(1, np.uint64)[0])


@contextlib.contextmanager
def seeded(seed: int, epoch: int = 0) -> Iterator[SeedRow]:
    """Return a function that seeds torch's (CPU), numpy's and Python's global RNG for a row, to be called before it.

    Afterwards the three continue as if nothing had been drawn: the masks of dropout don't depend on who made a sample.

    Args:
        seed: `loop.seed`.
        epoch: Round of rows for which none is given.
    """
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()

    def seed_row(row: int, round_number: int = epoch) -> None:
        value = seed_of(seed, round_number, row)
        torch.default_generator.manual_seed(value)
        np.random.seed(value % 2**32)
        random.seed(value)

    try:
        yield seed_row
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
