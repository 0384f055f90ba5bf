"""Which rows a step sees: a pure function of (seed, step), so a resume is exact and knows no world size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def split_rows(rows: int, train: float, validation: float, seed: int) -> tuple[Indices, Indices, Indices]:
    """Divide row numbers into train, validation and test; what rounding leaves goes to train.

    Args:
        rows: Number of rows.
        train: Share of the train split (for documentation of intent; it takes what the others leave).
        validation: Share of the validation split; test takes 1 - train - validation.
        seed: Seed of the shuffle.
    """
    order = np.random.default_rng([seed, rows]).permutation(rows)
    n_validation = round(rows * validation)
    n_test = round(rows * (1 - train - validation))
    n_train = rows - n_validation - n_test
    return order[:n_train], order[n_train : n_train + n_validation], order[n_train + n_validation :]


class Sampler:
    """The order of samples. Position is one integer: the number of optimizer steps done.

    Args:
        rows: Row numbers of the train split, in any order.
        batch_size: Rows per optimizer step over all workers.
        seed: Seed of the order.
    """

    def __init__(self, rows: Indices, batch_size: int, seed: int) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        # the last, partial batch of an epoch is left out: every step has the same size on every worker
        self.steps_per_epoch = len(rows) // batch_size
        self._epoch = -1
        self._order = rows

    def epoch(self, step: int) -> int:
        """Return the epoch of a step, from 0."""
        return step // self.steps_per_epoch

    def indices(self, step: int, rank: int = 0, world_size: int = 1) -> Indices:
        """Return the rows of a step for one rank: its contiguous slice of the batch, int64 of (batch / world size,)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.rows)
            self._epoch = epoch
        share = self.batch_size // world_size
        start = position * self.batch_size + rank * share
        return self._order[start : start + share]
