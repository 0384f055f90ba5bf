"""Data of the user's own: a map-style dataset, a class that returns whole batches, or a stream of items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainmaster_api.spec.data import DATA_CALL
from trainmaster_api.spec.job import Spec
from trainmaster_api.spec.task import Task

from trainmaster_trainer.data.prepared import Prepared, prepare
from trainmaster_trainer.data.rows import Rows, TensorRows
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.references import call, resolve

from .iterable import IterableRows, prepare_iterable
from .objects import Objects, is_iterable
from .rows import BatchRows, DatasetRows
from .stream import START, Made, Position, Stream

__all__ = [
    "START",
    "BatchRows",
    "DatasetRows",
    "IterableRows",
    "Made",
    "Position",
    "Stream",
    "own_data",
    "rows_of",
]


def own_data(spec: Spec, base_dir: Path) -> Prepared:
    """Return the user's data, split and scaled.

    Args:
        spec: The job's.
        base_dir: What relative paths are relative to.

    Raises:
        ConfigurationError: The arguments of the class don't fit, it isn't a dataset, or it can't feed the batches.
        DataError: A row or an item can't be used.
    """
    data = spec.training.data
    assert data.reference is not None
    target = resolve(data.reference, "data.class")
    if is_iterable(target):
        return prepare_iterable(Objects(target, data, base_dir), spec)
    objects = Objects(target, data, base_dir)  # before the first object: it knows what the constructor draws
    found = call(target, "data", DATA_CALL, data.args, offered={"base_dir": base_dir})
    if is_iterable(found):  # of a function
        return prepare_iterable(objects, spec)
    return prepare(rows_of(found, data.label, spec.training.task), spec.training)


def rows_of(found: Any, label: str, task: Task) -> Rows:
    """Return the rows of the user's dataset.

    Args:
        found: The user's object.
        label: Its reference, for sentences.
        task: Whether targets are classes or numbers.

    Raises:
        ConfigurationError: It isn't a dataset.
        DataError: A row isn't (sample, target).
    """
    if isinstance(found, TensorRows):
        return found
    if hasattr(found, "batch") and hasattr(found, "shape"):
        return BatchRows(found, label, task)
    if not hasattr(found, "__len__") or not hasattr(found, "__getitem__"):
        raise ConfigurationError(
            f"data.class {label}: is no dataset; it needs __len__ and __getitem__, which returns (sample, "
            "target), or __iter__, which yields them"
        )
    return DatasetRows(found, label, task)
