"""What a dataset of the user's says of itself: optional attributes, checked before a row is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from trainmaster_api.spec.task import Task

from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.errors import ConfigurationError, DataError

MOST_NAMED = 10
LARGEST = float(torch.finfo(torch.float32).max)


@dataclass(frozen=True)
class Attributes:
    """What is known of a dataset before it is read.

    Attributes:
        label: Its reference, for sentences.
        unit: What it consists of, for sentences: `row`, or `item` of a stream.
        is_classes: Whether targets are classes; else numbers.
        labels: Names of the classes; empty for regression.
        vocabulary: Number of tokens; 0: samples aren't tokens.
        shape: Declared shape of one sample; None: not declared.
        targets: Targets of all rows, int64 classes or float64 numbers; None: not declared.
        weights: Weights of all rows in the loss, float32; None: not declared.
    """

    label: str
    unit: str
    is_classes: bool
    labels: list[str]
    vocabulary: int = 0
    shape: tuple[int, ...] | None = None
    targets: Tensor | None = None
    weights: Tensor | None = None

    @property
    def row_classes(self) -> Indices | None:
        """Return the class of each row; None: a regression, or not declared."""
        return self.targets.numpy() if self.is_classes and self.targets is not None else None


def read_attributes(
    dataset: Any, label: str, task: Task, rows: int | None, *, unit: str = "row", classes: str = "classes"
) -> Attributes:
    """Return what a dataset declares.

    Args:
        dataset: The user's object.
        label: Its reference, for sentences.
        task: Whether targets are classes or numbers, and how many classes.
        rows: Number of rows; None: it is a stream.
        unit: What it consists of, for sentences.
        classes: Attribute with the names of the classes.

    Raises:
        ConfigurationError: An attribute isn't what it must be.
        DataError: A value of `targets` or `weights` can't be used; with the rows.
    """
    is_classes = task.name == "classification"
    where = f"data.class {label}"
    fingerprint = getattr(dataset, "fingerprint", None)
    if fingerprint is not None and (not isinstance(fingerprint, str) or not fingerprint):
        raise ConfigurationError(f"{where}: `fingerprint` is {_kind(fingerprint)}; expected text that isn't empty")
    names = _labels(dataset, classes, where, task) if is_classes else []
    if rows is None:
        for name in ("targets", "weights"):
            if getattr(dataset, name, None) is not None:
                raise ConfigurationError(
                    f"{where}: `{name}` is for datasets whose rows have numbers; an iterable dataset can't have it"
                )
        return Attributes(label, unit, is_classes, names, _vocabulary(dataset, where), _shape(dataset, where))
    return Attributes(
        label,
        unit,
        is_classes,
        names,
        _vocabulary(dataset, where),
        _shape(dataset, where),
        _targets(dataset, where, rows, names, is_classes=is_classes),
        _weights(dataset, where, rows),
    )


def some(problems: list[str]) -> str:
    """Return the first problems, and how many others there are."""
    more = len(problems) - MOST_NAMED
    return "; ".join(problems[:MOST_NAMED]) + (f"; and {more:,} more" if more > 0 else "")


def _kind(value: Any) -> str:
    if callable(value):
        return "a method (make it a property)"
    if isinstance(value, str):
        return "text" if value else "empty"
    return f"a {type(value).__name__}"


def _labels(dataset: Any, attribute: str, where: str, task: Task) -> list[str]:
    found = getattr(dataset, attribute, None)
    if found is None or (hasattr(found, "__len__") and len(found) == 0):
        if task.num_classes is None:
            raise ConfigurationError(
                f"task.numClasses: {where.removeprefix('data.class ')} has no attribute `{attribute}` with their "
                "names; set the number of classes"
            )
        return [str(number) for number in range(task.num_classes)]
    if isinstance(found, str) or not isinstance(found, list | tuple | np.ndarray):
        raise ConfigurationError(
            f"{where}: `{attribute}` is {_kind(found)}; expected a list of the classes' names, in order"
        )
    names = [str(name) for name in found]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ConfigurationError(f"{where}: `{attribute}` has a name twice: {', '.join(twice[:MOST_NAMED])}")
    return names


def _vocabulary(dataset: Any, where: str) -> int:
    found = getattr(dataset, "vocabulary", None)
    if found is None:
        return 0
    if isinstance(found, bool) or not isinstance(found, int | np.integer) or found < 1:
        what = found if isinstance(found, int | float) else _kind(found)
        raise ConfigurationError(f"{where}: `vocabulary` is {what}; expected the number of tokens")
    return int(found)


def _shape(dataset: Any, where: str) -> tuple[int, ...] | None:
    found = getattr(dataset, "shape", None)
    if found is None or not (hasattr(dataset, "collate") or hasattr(dataset, "batch")):
        return None  # the first row tells
    sides = list(found) if isinstance(found, tuple | list) else []
    if not sides or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        what = list(found) if isinstance(found, tuple | list) else _kind(found)
        raise ConfigurationError(f"{where}: `shape` is {what}; expected the shape of one sample, such as (3, 32, 32)")
    return tuple(sides)


def _numbers(dataset: Any, name: str, where: str, rows: int) -> np.ndarray[Any, Any] | None:
    """Return an attribute with a number for each row, float64 or int64."""
    value = getattr(dataset, name, None)
    if value is None:
        return None
    expected = "expected a list or an array of a number for each row"
    if callable(value) or isinstance(value, str | dict):
        raise ConfigurationError(f"{where}: `{name}` is {_kind(value)}; {expected}")
    try:
        found = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"{where}: `{name}`: {error}; {expected}") from None
    if found.dtype.kind not in "biuf":
        raise ConfigurationError(f"{where}: `{name}` has values of type {found.dtype}; {expected}")
    if found.shape != (rows,):
        raise ConfigurationError(
            f"{where}: `{name}` has shape {list(found.shape)} and the dataset {rows} rows; {expected}"
        )
    return found.astype(np.float64 if found.dtype.kind == "f" else np.int64)


def _targets(dataset: Any, where: str, rows: int, names: list[str], *, is_classes: bool) -> Tensor | None:
    found = _numbers(dataset, "targets", where, rows)
    if found is None:
        return None
    if is_classes:
        with np.errstate(invalid="ignore"):
            wrong = ~((found >= 0) & (found < len(names)) & (found == np.floor(found)))
        expected = f"expected 0 .. {len(names) - 1}"
    else:
        wrong, expected = ~(np.abs(found) <= LARGEST), "expected a finite number, not beyond float32"
    problems = [f"row {row} has {found[row]}" for row in np.flatnonzero(wrong)]
    if problems:
        raise DataError(f"{where}: `targets`: {some(problems)}; {expected}")
    return torch.from_numpy(found.astype(np.int64 if is_classes else np.float64))


def _weights(dataset: Any, where: str, rows: int) -> Tensor | None:
    found = _numbers(dataset, "weights", where, rows)
    if found is None:
        return None
    problems = [f"row {row} has {found[row]}" for row in np.flatnonzero(~((found >= 0) & (found <= LARGEST)))]
    if problems:
        raise DataError(f"{where}: `weights`: {some(problems)}; expected finite numbers, 0 or more")
    if not found.any():
        raise DataError(f"{where}: `weights` are all 0: nothing would be trained")
    return torch.from_numpy(found.astype(np.float32))
