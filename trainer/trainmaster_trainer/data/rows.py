"""What a source's rows are: by number, in memory, with columns that decide their split, fitted on the train split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from trainmaster_api.spec.data import Data

from trainmaster_trainer.sample import Sample

from .division import Division
from .order import Indices


class Rows(Protocol):
    """A source's rows: random access by row number, vectorised."""

    shape: tuple[int, ...]
    """Shape of one sample."""
    labels: list[str]
    """Names of the classes in order; empty for regression."""
    features: list[str]
    """Names of the features in order; empty for images."""
    notes: tuple[str, ...]
    """What was read, left out and noticed, a sentence each, to be shown before the first step."""

    def __len__(self) -> int: ...

    def batch(self, indices: Indices) -> tuple[Sample, Tensor]:
        """Return unscaled samples, float32 of (n, *shape), and targets of (n,).

        Targets are int64 classes, or float32 or float64 numbers.
        """
        ...


class TensorRows:
    """Rows that fit into memory."""

    notes: tuple[str, ...] = ()
    weights: Tensor | None = None
    """Weight of each row in the loss, of (n,): finite and at least 0. `prepare` divides them by their mean over the
    train split, which makes them float32. None: all rows count alike."""
    in_memory = True
    """Whether `x` has the samples; if not, `batch` reads those it needs."""

    def __init__(self, x: Tensor, y: Tensor, labels: list[str], features: list[str]) -> None:
        self.x, self.y, self.labels, self.features = x, y, labels, features
        self.shape = tuple(x.shape[1:])

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Return rows by number."""
        index = torch.from_numpy(indices)
        return self.x[index], self.y[index]

    @property
    def row_classes(self) -> Indices | None:
        """Return the class of each row; None for regression."""
        return None if self.y.is_floating_point() else self.y.numpy().astype(np.int64, copy=False)


@runtime_checkable
class Checked(Protocol):
    """Rows that know what to check of a split."""

    def check(self, division: Division) -> tuple[str, ...]:
        """Return warnings about a split, a sentence each.

        Raises:
            DataError: Nothing may be trained on it.
        """
        ...


@runtime_checkable
class Comparable(Protocol):
    """Rows without columns that know which of them are copies."""

    def copy_ids(self) -> Indices:
        """Return for each row the number of the first one that it is a copy of; its own, if there is none."""
        ...


@runtime_checkable
class Columns(Checked, Protocol):
    """Rows of a table, which decides their split and has a report."""

    def divide(self, data: Data) -> Division:
        """Return the split that a job asks for."""
        ...

    def description(self) -> dict[str, Any]:
        """Return what a packaged model needs in addition to turn raw rows into samples."""
        ...

    def summary(self) -> str:
        """Return what the user should see before the first step."""
        ...


class FittedRows(ABC):
    """Rows in memory whose samples are made, and scaled, with what the train split says once it is known.

    Until `fit` has been called, they have a number and targets only.
    """

    shape: tuple[int, ...]
    labels: list[str]
    features: list[str]
    notes: tuple[str, ...] = ()
    y: Tensor
    """Target of each row."""

    def __len__(self) -> int:
        return len(self.y)

    @property
    def targets(self) -> Tensor:
        """Return the target of each row."""
        return self.y

    @property
    def row_classes(self) -> Indices | None:
        """Return the class of each row; None for regression."""
        return None if self.y.is_floating_point() else self.y.numpy().astype(np.int64)

    @abstractmethod
    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Return samples and targets by row number."""

    @abstractmethod
    def fit(self, train: Indices) -> None:
        """Make the samples; `shape` and `features` are set from here on.

        Args:
            train: Row numbers of the train split.
        """

    @abstractmethod
    def divide(self, data: Data) -> Division:
        """Return the split that a job asks for."""

    @abstractmethod
    def check(self, division: Division) -> tuple[str, ...]:
        """Return warnings about a split, a sentence each.

        Raises:
            DataError: Nothing may be trained on it.
        """

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Return what a packaged model needs in addition to turn raw rows into samples."""

    def files(self) -> dict[str, bytes]:
        """Return files of the packaged model that the description needs, by name."""
        return {}

    @abstractmethod
    def summary(self) -> str:
        """Return what the user should see before the first step."""
