"""Data of the user's own: a class whose objects are rows of ours, or a map-style dataset as torch has them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from trainmaster_api.spec.data import DATA_CALL, Data
from trainmaster_api.spec.task import Task

from trainmaster_trainer.errors import ConfigurationError, DataError
from trainmaster_trainer.references import call, resolve

from .order import Indices
from .prepared import Rows


class DatasetRows:
    """Rows of a map-style dataset: `dataset[i]` is (sample, target); order, split and scaling are ours.

    Args:
        dataset: Has `__len__` and `__getitem__`; `classes`, if it has them, are the names of the classes.
        label: Its reference, for sentences.
        task: Whether targets are classes or numbers.
    """

    features: list[str]
    notes: tuple[str, ...] = ()

    def __init__(self, dataset: Any, label: str, task: Task) -> None:
        self.dataset, self.label, self.features = dataset, label, []
        self.is_classes = task.name == "classification"
        self.labels = [str(name) for name in getattr(dataset, "classes", [])] if self.is_classes else []
        if self.is_classes and not self.labels:
            if task.num_classes is None:
                raise ConfigurationError(
                    f"task.numClasses: {label} has no attribute `classes` with their names; set the number of classes"
                )
            self.labels = [str(number) for number in range(task.num_classes)]
        if len(dataset) == 0:
            raise DataError(f"data.class {label} has no rows")
        self.shape = tuple(self._row(0)[0].shape)

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Read the rows one by one."""
        rows = [self._row(int(index)) for index in indices]
        for index, (x, _) in zip(indices, rows, strict=True):
            if tuple(x.shape) != self.shape:
                raise DataError(
                    f"data.class {self.label}: row {index} has shape {list(x.shape)} and row 0 {list(self.shape)}; "
                    "all rows must have the same shape"
                )
        targets = torch.tensor([y for _, y in rows], dtype=torch.int64 if self.is_classes else torch.float32)
        return torch.stack([x for x, _ in rows]), targets

    def _row(self, index: int) -> tuple[Tensor, int | float]:
        row = self.dataset[index]
        if not isinstance(row, tuple | list) or len(row) != 2:
            raise DataError(
                f"data.class {self.label}: row {index} is a {type(row).__name__}; expected a pair (sample, target)"
            )
        try:
            x = row[0] if isinstance(row[0], Tensor) else torch.from_numpy(np.asarray(row[0]))
            y = row[1].item() if isinstance(row[1], Tensor | np.generic | np.ndarray) else row[1]
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"data.class {self.label}: row {index} can't be converted to a tensor and a number: {error}"
            ) from error
        if isinstance(y, bool) or not isinstance(y, int | float):
            y = int(y) if isinstance(y, bool) else self._no_number(index, y)
        if self.is_classes and not (0 <= y < len(self.labels) and y == int(y)):  # false for NaN, too
            raise DataError(
                f"data.class {self.label}: row {index} has class {y}; expected 0 .. {len(self.labels) - 1} "
                "(task.numClasses)"
            )
        if not math.isfinite(y):
            raise DataError(f"data.class {self.label}: the target of row {index} is {y}; expected a finite number")
        # whole numbers may be tokens, which an embedding wants as they are; bytes are pixels
        return x.float() if x.dtype in (torch.float64, torch.float16, torch.uint8, torch.bool) else x, y

    def _no_number(self, index: int, y: Any) -> float:
        raise DataError(
            f"data.class {self.label}: the target of row {index} is a {type(y).__name__}; expected a number"
            + (", the class's index" if self.is_classes else "")
        )


def own_rows(data: Data, task: Task, base_dir: Path) -> Rows:
    """Return the rows of the user's class.

    Raises:
        ConfigurationError: Its arguments don't fit, or it isn't a dataset.
        DataError: A row isn't (sample, target).
    """
    assert data.reference is not None
    target = resolve(data.reference, "data.class")
    found = call(target, "data", DATA_CALL, data.args, offered={"base_dir": base_dir})
    if hasattr(found, "batch") and hasattr(found, "shape"):
        for name, none in (("labels", list[str]()), ("features", list[str]()), ("notes", ())):
            if not hasattr(found, name):
                setattr(found, name, none)
        return found  # type: ignore[no-any-return]
    if not hasattr(found, "__len__") or not hasattr(found, "__getitem__"):
        raise ConfigurationError(
            f"data.class {data.label}: needs __len__ and __getitem__, which returns (sample, target); an iterable "
            "dataset has no position to resume from"
        )
    return DatasetRows(found, data.label, task)
