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
        weights: How often each of `rows` is drawn, relative to the others: with replacement, `len(rows)` times per
            epoch; None: each once.
    """

    def __init__(
        self,
        rows: Indices,
        batch_size: int,
        seed: int,
        classes: npt.NDArray[np.int64] | None = None,
        lengths: npt.NDArray[np.int64] | None = None,
        weights: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.lengths = lengths
        self._shares = None if weights is None else weights / weights.sum()
        # the last, partial batch of an epoch is left out: every step has the same size on every worker
        self.steps_per_epoch = len(rows) // batch_size
        self._members = [] if classes is None else [rows[classes == each] for each in np.unique(classes)]
        self._epoch = -1
        self._order = rows
        self._rounds = rows[:0]  # of the rows in `_order`, where classes are balanced
        self._part = (0, 0)  # which positions of the epoch `_order` has, where there are many

    def epoch(self, step: int) -> int:
        """Return the epoch of a step, from 0."""
        return step // self.steps_per_epoch

    def indices(self, step: int, rank: int = 0, world_size: int = 1) -> Indices:
        """Return the rows of a step for one rank: its contiguous slice of the batch, int64 of (batch / world size,)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        share = self.batch_size // world_size
        start = position * self.batch_size + rank * share
        if len(self.rows) >= MANY and self._is_plain and self.lengths is None:
            return self._of_many(epoch, start, start + share)
        self._begin(epoch)
        return self._order[start : start + share]

    def rounds(self, step: int, rank: int = 0, world_size: int = 1) -> Indices:
        """Return the round of each of the rows that `indices` returns: no row occurs twice in one round.

        Without balanced classes it is the epoch. With them it is how many times the sequence of the row's class has
        been gone through before, over all epochs: a row of a small class is drawn several times in an epoch, each time
        in another round, and what is drawn at random for it is another draw each time. With weights, likewise.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        share = self.batch_size // world_size
        if self._is_plain:
            return np.full(share, epoch)
        start = position * self.batch_size + rank * share
        self._begin(epoch)
        return self._rounds[start : start + share]

    def _begin(self, epoch: int) -> None:
        """Compute the order of an epoch."""
        if epoch == self._epoch:
            return
        dice = np.random.default_rng([self.seed, epoch])
        if self._shares is not None:
            rows, rounds = self._weighted(epoch, dice)
        else:
            rows, rounds = self._balanced(epoch) if self._members else (self.rows, self._rounds)
        places = dice.permutation(len(rows))
        if self.lengths is not None:
            places = self._by_length(places, self.lengths[rows], dice)
        self._order = rows[places]
        if not self._is_plain:
            self._rounds = rounds[places]
        self._epoch = epoch

    @property
    def _is_plain(self) -> bool:
        """Return whether an epoch has each row once."""
        return not self._members and self._shares is None

    def _weighted(self, epoch: int, dice: np.random.Generator) -> tuple[Indices, Indices]:
        """Return the rows that an epoch draws, and the round of each: how often it was drawn before in this epoch."""
        places = np.sort(dice.choice(len(self.rows), size=len(self.rows), p=self._shares))
        before = np.arange(len(places)) - np.searchsorted(places, places, side="left")
        return self.rows[places], epoch * len(self.rows) + before

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
        """Return the places of an epoch's steps in batches of similar length, the batches in random order.

        The permutation is cut into windows and each is sorted by length, so which rows meet in a batch is still random
        and differs between epochs, and the rows that the epoch leaves out are as without lengths.
        """
        order = order[: self.steps_per_epoch * self.batch_size]
        window = WINDOW * self.batch_size
        parts = [order[start : start + window] for start in range(0, len(order), window)]
        batches = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])
        batches = batches.reshape(self.steps_per_epoch, self.batch_size)
        return batches[dice.permutation(self.steps_per_epoch)].ravel()

    def _balanced(self, epoch: int) -> tuple[Indices, Indices]:
        """Return an epoch's rows, as many of each class, and their rounds: the next of the class's endless sequence.

        The sequence of a class is one permutation of its rows after the other, so no row is drawn again before each
        has been drawn, over epochs too. An epoch takes a fixed number of it, so its place in it needs no state.
        """
        number = len(self._members)
        drawn, rounds_drawn = [], []
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
            rounds_drawn.append(np.arange(first, last) // len(members))
        return np.concatenate(drawn), np.concatenate(rounds_drawn)
