"""Rows of the user's own: a map-style dataset as torch has them, or a class that returns whole batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from trainmaster_api.spec.task import Task

from trainmaster_trainer.data.draws import seeded
from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.errors import ConfigurationError, DataError
from trainmaster_trainer.sample import Sample

from .attributes import Attributes, read_attributes
from .returned import Returned

EVALUATION = 2**32  # seed of the draws of rows that aren't trained on: no loop.seed is as large


class _OwnRows:
    """What both kinds have in common.

    Args:
        dataset: The user's object.
        label: Its reference, for sentences.
        task: Whether targets are classes or numbers.
        classes: Attribute with the names of the classes.
    """

    features: list[str]
    notes: tuple[str, ...] = ()
    shape: tuple[int, ...]
    can_be_scaled = True

    def __init__(self, dataset: Any, label: str, task: Task, classes: str = "classes") -> None:
        if not hasattr(dataset, "__len__"):
            raise ConfigurationError(f"data.class {label}: needs __len__, the number of its rows")
        self.dataset, self.label, self.features = dataset, label, []
        if len(dataset) == 0:
            raise DataError(f"data.class {label} has no rows")
        self.about: Attributes = read_attributes(dataset, label, task, len(dataset), classes=classes)
        self.labels, self.vocabulary, self.weights = self.about.labels, self.about.vocabulary, self.about.weights
        self.row_classes, self.targets = self.about.row_classes, self.about.targets

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices: Indices) -> tuple[Sample, Tensor]:
        """Return rows that aren't trained on: what is drawn for a row is the same each time."""
        return self._read(indices, np.zeros_like(indices), EVALUATION)

    def training_batch(self, indices: Indices, rounds: Indices, seed: int) -> tuple[Sample, Tensor]:
        """Return rows to train on.

        Args:
            indices: Row numbers.
            rounds: Round of each row (`Sampler.rounds`).
            seed: `loop.seed`.
        """
        return self._read(indices, rounds, seed)

    def _read(self, indices: Indices, rounds: Indices, seed: int) -> tuple[Sample, Tensor]:
        raise NotImplementedError


class DatasetRows(_OwnRows):
    """Rows of a map-style dataset: `dataset[i]` is (sample, target); order, split and scaling are ours.

    What a row draws from numpy's, torch's and Python's global RNG is a pure function of (seed, round, row): the number
    of ranks, of micro-batches and of worker processes, and a resume, change nothing.
    """

    def __init__(self, dataset: Any, label: str, task: Task) -> None:
        super().__init__(dataset, label, task)
        collate = getattr(dataset, "collate", None)
        if collate is not None and not callable(collate):
            raise ConfigurationError(
                f"data.class {label}: `collate` is a {type(collate).__name__}; expected a function of a list of "
                "(sample, target) that returns (samples, targets)"
            )
        self._returned = Returned(self.about, collate)
        with seeded(EVALUATION, 0) as seed_row:
            seed_row(0)
            self._returned.begin(0, dataset[0])
        self.shape = self._returned.shape
        self.can_be_scaled = not self._returned.note
        self.notes = tuple(filter(None, (self._returned.note,)))

    def _read(self, indices: Indices, rounds: Indices, seed: int) -> tuple[Sample, Tensor]:
        """Read the rows one by one."""
        items = []
        with seeded(seed) as seed_row:
            for index, round_number in zip(indices.tolist(), rounds.tolist(), strict=True):
                seed_row(index, round_number)
                items.append((index, self.dataset[index]))
            # within the block: what `collate` draws follows from the rows of the batch
            return self._returned.batch(items)


class BatchRows(_OwnRows):
    """Rows of a class with `batch(indices)`, which returns (samples, targets), and `shape`.

    What it draws is a pure function of (seed, round and number of the batch's first row): exact in a resume and
    for every number of worker processes, not for another number of ranks or micro-batches.
    """

    def __init__(self, dataset: Any, label: str, task: Task) -> None:
        super().__init__(dataset, label, task, "classes" if hasattr(dataset, "classes") else "labels")
        assert self.about.shape is not None
        self.shape = self.about.shape
        self.features = list(getattr(dataset, "features", []))
        self.notes = tuple(getattr(dataset, "notes", ()))
        self._returned = Returned(self.about, None)

    def _read(self, indices: Indices, rounds: Indices, seed: int) -> tuple[Sample, Tensor]:
        with seeded(seed) as seed_row:
            if len(indices):
                seed_row(int(indices[0]), int(rounds[0]))
            return self._returned.made(indices.tolist(), self.dataset.batch(indices))
