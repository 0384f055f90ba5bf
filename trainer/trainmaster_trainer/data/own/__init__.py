"""Data of the user's own: a map-style dataset, a class that returns whole batches, or a stream of items."""

from __future__ import annotations

from pathlib import Path

from trainmaster_api.spec.data import DATA_CALL, Data
from trainmaster_api.spec.task import Task

from trainmaster_trainer.data.prepared import Rows, TensorRows
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.references import call, resolve

from .rows import BatchRows, DatasetRows

__all__ = ["BatchRows", "DatasetRows", "own_rows"]


def own_rows(data: Data, task: Task, base_dir: Path) -> Rows:
    """Return the rows of the user's class.

    Raises:
        ConfigurationError: Its arguments don't fit, or it isn't a dataset.
        DataError: A row isn't (sample, target).
    """
    assert data.reference is not None
    target = resolve(data.reference, "data.class")
    found = call(target, "data", DATA_CALL, data.args, offered={"base_dir": base_dir})
    if isinstance(found, TensorRows):
        return found
    if hasattr(found, "batch") and hasattr(found, "shape"):
        return BatchRows(found, data.label, task)
    if not hasattr(found, "__len__") or not hasattr(found, "__getitem__"):
        raise ConfigurationError(
            f"data.class {data.label}: needs __len__ and __getitem__, which returns (sample, target); an iterable "
            "dataset has no position to resume from"
        )
    return DatasetRows(found, data.label, task)
