"""Data of the user's own: a map-style dataset, a class that returns whole batches, or a stream of items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainmaster_api.spec.data import DATA_CALL, Data
from trainmaster_api.spec.job import Spec
from trainmaster_api.spec.task import Task

from trainmaster_trainer.data.prepared import Prepared, Rows, TensorRows, prepare
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
    "own_rows",
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
    return prepare(_rows(found, data, spec.training.task), spec.training)


def own_rows(data: Data, task: Task, base_dir: Path) -> Rows:
    """Return the rows of the user's class.

    Raises:
        ConfigurationError: Its arguments don't fit, or it isn't a dataset.
        DataError: A row isn't (sample, target).
    """
    assert data.reference is not None
    target = resolve(data.reference, "data.class")
    return _rows(call(target, "data", DATA_CALL, data.args, offered={"base_dir": base_dir}), data, task)


def _rows(found: Any, data: Data, task: Task) -> Rows:
    if isinstance(found, TensorRows):
        return found
    if hasattr(found, "batch") and hasattr(found, "shape"):
        return BatchRows(found, data.label, task)
    if not hasattr(found, "__len__") or not hasattr(found, "__getitem__"):
        raise ConfigurationError(
            f"data.class {data.label}: is no dataset; it needs __len__ and __getitem__, which returns (sample, "
            "target), or __iter__, which yields them"
        )
    return DatasetRows(found, data.label, task)
