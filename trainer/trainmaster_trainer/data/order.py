"""Which rows a step sees: a pure function of (seed, step), so a resume is exact and knows no world size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .permutation import Permutation

Indices = npt.NDArray[np.int64]

WINDOW = 64
"""Batches whose rows are sorted by length together: enough for little padding, few enough for a random order."""

MANY = 2**20
"""From this number of rows on, an epoch's order is computed a part at a time, by the steps that need it."""
PART = 2**16


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
        classes: Class of each of `rows`, to draw every class equally often; None: every row once per epoch.
        lengths: Length of every row of the data, by row number, to put rows of similar length into one batch; None: a
            batch has rows of any length.
    """

    def __init__(
        self,
        rows: Indices,
        batch_size: int,
        seed: int,
        classes: npt.NDArray[np.int64] | None = None,
        lengths: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.lengths = lengths
        # the last, partial batch of an epoch is left out: every step has the same size on every worker
        self.steps_per_epoch = len(rows) // batch_size
        self._members = [] if classes is None else [rows[classes == each] for each in np.unique(classes)]
        self._epoch = -1
        self._order = rows
        self._part = (0, 0)  # which positions of the epoch `_order` has, where there are many

    def epoch(self, step: int) -> int:
        """Return the epoch of a step, from 0."""
        return step // self.steps_per_epoch

    def indices(self, step: int, rank: int = 0, world_size: int = 1) -> Indices:
        """Return the rows of a step for one rank: its contiguous slice of the batch, int64 of (batch / world size,)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        share = self.batch_size // world_size
        start = position * self.batch_size + rank * share
        if len(self.rows) >= MANY and not self._members and self.lengths is None:
            return self._of_many(epoch, start, start + share)
        if epoch != self._epoch:
            rows = self._balanced(epoch) if self._members else self.rows
            dice = np.random.default_rng([self.seed, epoch])
            self._order = dice.permutation(rows)
            if self.lengths is not None:
                self._order = self._by_length(self._order, self.lengths, dice)
            self._epoch = epoch
        return self._order[start : start + share]

    def _of_many(self, epoch: int, start: int, stop: int) -> Indices:
        """Return a part of an epoch's order, without that of the others."""
        first, last = self._part
        if epoch != self._epoch or not first <= start <= stop <= last:
            first, last = start, min(max(stop, start + PART), len(self.rows))
            positions = np.arange(first, last)
            self._order = self.rows[Permutation(len(self.rows), [self.seed, epoch])(positions)]
            self._epoch, self._part = epoch, (first, last)
        return self._order[start - first : stop - first]

    def _by_length(self, order: Indices, lengths: npt.NDArray[np.int64], dice: np.random.Generator) -> Indices:
        """Return the rows of an epoch's steps in batches of similar length, the batches in random order.

        The permutation is cut into windows and each is sorted by length, so which rows meet in a batch is still random
        and differs between epochs, and the rows that the epoch leaves out are as without lengths.
        """
        order = order[: self.steps_per_epoch * self.batch_size]
        window = WINDOW * self.batch_size
        parts = [order[start : start + window] for start in range(0, len(order), window)]
        batches = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])
        batches = batches.reshape(self.steps_per_epoch, self.batch_size)
        return batches[dice.permutation(self.steps_per_epoch)].ravel()

    def _balanced(self, epoch: int) -> Indices:
        """Return an epoch's rows, as many of each class: the next of the class's endless sequence.

        The sequence of a class is one permutation of its rows after the other, so no row is drawn again before each
        has been drawn, over epochs too. An epoch takes a fixed number of it, so its place in it needs no state.
        """
        number = len(self._members)
        drawn = []
        for index, members in enumerate(self._members):
            quota = (len(self.rows) + index) // number  # they add up to the rows of the train split
            first, last = epoch * quota, (epoch + 1) * quota
            rounds = range(first // len(members), -(-last // len(members)))
            if len(rounds) == 0:
                continue
            # a third number above 0 keeps these draws apart from those of the epochs
            sequence = np.concatenate(
                [np.random.default_rng([self.seed, each, index + 1]).permutation(members) for each in rounds]
            )
            drawn.append(sequence[first - rounds.start * len(members) :][:quota])
        return np.concatenate(drawn)
