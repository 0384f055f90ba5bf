"""Rows with their split and their scaling: what the loop reads and what the model is packaged with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.training import Training

from trainmaster_trainer.errors import ConfigurationError, DataError
from trainmaster_trainer.sample import BYTE, Inputs, Sample, apply

from .division import Division, Keys, divide
from .duplicates import dedupe
from .order import Indices
from .rows import Checked, Columns, Comparable, FittedRows, Rows, TensorRows
from .sentences import first_of, quoted
from .spellings import look_alikes
from .split import SPLITS

STATISTICS_ROWS = 256  # rows whose decoding is cheap enough to happen before the first step
STATISTICS_VALUES = 2**22  # numbers that are looked at together


@dataclass
class Prepared:
    """Rows with their split and scaling.

    Attributes:
        rows: All rows.
        train: Row numbers of the train split; `validation` and `test` likewise.
        mean: Subtracted from samples, broadcastable to one sample; `std` divides.
        target_mean: Subtracted from regression targets; `target_std` divides.
        notes: What to show before the first step, a sentence each.
        train_classes: Class of each row of the train split, for balanced sampling; None: not asked for.
        lengths: Length of each row, by row number, for batches of similar length; None: they aren't asked for.
        draw_weights: How often each row of the train split is drawn; None: once per epoch.
        said: What the user is told about the split, a sentence each; `warnings`: those that differ from what was asked.
    """

    rows: Rows
    train: Indices
    validation: Indices
    test: Indices
    mean: Tensor
    std: Tensor
    target_mean: float = 0.0
    target_std: float = 1.0
    notes: tuple[str, ...] = ()
    train_classes: Indices | None = None
    lengths: Indices | None = None
    said: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    draw_weights: npt.NDArray[np.float64] | None = None
    _on_device: dict[str, Tensor] = field(default_factory=dict)
    _weights: Tensor | None = None

    @property
    def inputs(self) -> Inputs:
        """What a model has to know of these samples."""
        vocabulary: int = getattr(self.rows, "vocabulary", 0)
        categories: tuple[tuple[int, int], ...] = getattr(self.rows, "categories", ())
        return Inputs(tuple(self.rows.shape), vocabulary, categories)

    @property
    def has_weights(self) -> bool:
        """Whether rows have weights in the loss."""
        return getattr(self.rows, "weights", None) is not None

    @property
    def is_on_device(self) -> bool:
        """Whether every row is on the device, scaled: a batch is then two index operations."""
        return bool(self._on_device)

    def move(self, device: torch.device) -> None:
        """Scale once and keep everything on the device, where the rows are in memory: a step then only indexes."""
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        weights: Tensor | None = getattr(self.rows, "weights", None)
        self._weights = None if weights is None else weights.to(device)
        if isinstance(self.rows, TensorRows) and self.rows.in_memory:
            x, y = self.scaled(self.rows.x, self.rows.y)
            assert isinstance(x, Tensor)
            self._on_device = {"x": x, "y": y}

    def batch(self, indices: Indices) -> tuple[Sample, Tensor]:
        """Return scaled samples and targets on the device, by row number."""
        if self._on_device:
            index = torch.from_numpy(indices).to(self.mean.device)
            return self._on_device["x"].index_select(0, index), self._on_device["y"].index_select(0, index)
        return self.scaled(*self.rows.batch(indices))

    def weight(self, indices: Indices) -> Tensor | None:
        """Return the weights of rows in the loss, on the device; None: all are the same."""
        if self._weights is None:
            return None
        return self._weights.index_select(0, torch.from_numpy(indices).to(self.mean.device))

    def scaled(self, x: Sample, y: Tensor) -> tuple[Sample, Tensor]:
        """Return samples and targets on the device, scaled where they are numbers."""
        device = self.mean.device
        if y.is_floating_point():
            # in float64, and not on the device, which may have none: large numbers are told apart by their differences
            y = ((y.double() - self.target_mean) / self.target_std).float()
        y = y.to(device, non_blocking=True)
        x = apply(x, lambda each: each.to(device, non_blocking=True))
        if isinstance(x, Tensor) and x.dtype == torch.uint8:  # pixels, which are a quarter of the size until here
            x = x.float() / BYTE
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x, y  # tokens, or several tensors: there is nothing to scale
        return (x - self.mean) / self.std, y

    def description(self) -> dict[str, Any]:
        """Return what a packaged model needs to be used on new rows."""
        return {
            **self.inputs.wire(),
            "labels": self.rows.labels,
            "features": self.rows.features,
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
            "statisticsShape": list(self.mean.shape),
            "targetMean": self.target_mean,
            "targetStd": self.target_std,
            **(self.rows.description() if isinstance(self.rows, Columns) else {}),
        }

    def files(self) -> dict[str, bytes]:
        """Return files of the packaged model that the description needs, by name."""
        return self.rows.files() if isinstance(self.rows, FittedRows) else {}

    def about(self) -> str:
        """Return what the user should see of the data before the first step, a sentence or a row per line."""
        of_rows = (self.rows.summary(),) if isinstance(self.rows, Columns) else ()
        plain = [sentence for sentence in self.said if sentence not in self.warnings]
        return "\n".join(filter(None, (*of_rows, *self.notes, *plain)))


def prepare(rows: Rows, training: Training, division: Division | None = None) -> Prepared:
    """Split rows and measure the train split.

    Args:
        rows: The rows.
        training: `spec.training`.
        division: The split, where the source has made it, because its columns, or several files, decide it. Default:
            made here, by the class of each row where the rows have `row_classes`.

    Raises:
        ConfigurationError: The splits can't feed one batch, or are empty.
        DataError: More classes in the data than the task has.
    """
    spec, task = training.data, training.task
    require_classes(rows, training)
    classes: Indices | None = getattr(rows, "row_classes", None) if task.name == "classification" else None
    if division is None and isinstance(rows, Columns):
        division = rows.divide(spec)
    if division is None:
        if spec.dedupe and not isinstance(rows, Comparable):  # ignoring it would train on other rows than asked
            raise ConfigurationError(f"data.dedupe is for tables and images, and {spec.label} is neither; remove it")
        own = [getattr(rows, name, 0) for name in ("validation_rows", "test_rows")]
        keys = Keys(len(rows), classes, rows.labels, validation_rows=own[0], test_rows=own[1])
        division = divide(spec.split, keys)
        if spec.dedupe and isinstance(rows, Comparable):
            division = dedupe(division, rows.copy_ids(), "images")
    _require_rows(division, len(rows), spec)
    if isinstance(rows, FittedRows):
        rows.fit(division.train)
    found = Prepared(
        rows,
        *division.parts,
        mean=torch.zeros(1),
        std=torch.ones(1),
        said=division.said,
        warnings=(*division.warnings, *_alike(rows.labels), *_checked(rows, division, classes)),
        notes=rows.notes,
    )
    if spec.sampling == "balanced":
        if classes is None:
            raise ConfigurationError(
                f"data.sampling: balanced needs the class of every row before the first step, which {spec.label} "
                "doesn't have; use uniform"
            )
        found.train_classes = classes[division.train]
    if spec.text.bucketing and hasattr(rows, "lengths"):
        found.lengths = rows.lengths
        # what is evaluated has no order to keep, and batches of similar length have little padding
        found.validation, found.test = (
            part[np.argsort(rows.lengths[part], kind="stable")] for part in (found.validation, found.test)
        )
    _scale_weights(rows, division)
    measure(found, normalize=spec.normalize)
    return found


def _scale_weights(rows: Rows, division: Division) -> None:
    """Divide the weights by their mean over the train split: the learning rate means what it means without weights.

    Raises:
        DataError: Those of a split are all 0.
    """
    weights: Tensor | None = getattr(rows, "weights", None)
    if weights is None:
        return
    means = [float(weights[torch.from_numpy(part)].double().mean()) for part in division.parts]
    zero = [name for name, mean in zip(SPLITS, means, strict=True) if not mean]
    if zero:
        raise DataError(
            f"the weights of the {' and '.join(zero)} split are all 0, so its loss is undefined; correct them, or the "
            "split (data.split)"
        )
    rows.weights = (weights.double() / means[0]).float()  # type: ignore[attr-defined]  # optional in the protocol


def _checked(rows: Rows, division: Division, classes: Indices | None) -> tuple[str, ...]:
    """Return warnings about a split; of rows without columns, the classes that it lacks."""
    if isinstance(rows, Checked):
        return rows.check(division)
    if classes is None:
        return ()
    from .checks import missing_classes

    return tuple(finding.sentence for finding in missing_classes(classes, rows.labels, division))


def _alike(labels: list[str]) -> list[str]:
    """Return a warning of classes that a reader takes for one."""
    groups = look_alikes(labels)
    return [
        f"classes {first_of([quoted(group) for group in groups])} differ in case, space or invisible characters only, "
        "and are different classes; write them alike if they are one"
    ] if groups else []  # fmt: skip


def require_classes(rows: Rows, training: Training) -> None:
    """Reject data with more classes than the task has."""
    spec, task = training.data, training.task
    if task.num_classes is not None and len(rows.labels) > task.num_classes:
        some = ", ".join(rows.labels[:12]) + (", ..." if len(rows.labels) > 12 else "")
        raise DataError(
            f"{spec.label} has {len(rows.labels)} classes ({some}) but task.numClasses is {task.num_classes}; "
            f"set task.numClasses to {len(rows.labels)}"
        )
    if task.name == "classification" and len(rows.labels) == 1:
        raise DataError(f"{spec.label} has one class only, {rows.labels[0]!r}: there is nothing to predict")


def _require_rows(division: Division, rows: int, spec: Data) -> None:
    what = f"column {spec.split.column} must have rows of it" if division.by == "column" else "increase its share"
    problems = [
        f"data.split.{name} has no rows of the {rows} in {spec.label}; {what}"
        for name, part in zip(("train", "validation", "test"), division.parts, strict=True)
        if len(part) == 0
    ]
    if 0 < len(division.train) < spec.batch_size:
        problems.append(
            f"data.batchSize {spec.batch_size} is more than the {len(division.train)} rows of the train split "
            f"({rows} rows in {spec.label}); at most {len(division.train)} is possible"
        )
    if problems:
        raise ConfigurationError("; ".join(problems))


def measure(data: Prepared, *, normalize: bool) -> None:
    """Return statistics of the train split; of its first rows if each has to be decoded (the split is shuffled)."""
    chosen = data.train if isinstance(data.rows, TensorRows) else data.train[:STATISTICS_ROWS]
    # one mean per feature, or per channel for images; a constant feature is only centred
    over = (0, 2, 3) if len(data.rows.shape) == 3 else (0,)
    # encoded rows are scaled already, with statistics of the train split; several tensors, or ragged ones, never are
    can_be_scaled = getattr(data.rows, "can_be_scaled", True) and not isinstance(data.rows, FittedRows)
    known = getattr(data.rows, "statistics", None)  # mean and standard deviation of each channel
    first, y = data.rows.batch(chosen[:1])
    if normalize and known is not None:
        data.mean, data.std = (torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1) for values in known)
    elif normalize and can_be_scaled and isinstance(first, Tensor) and first.is_floating_point():
        data.mean = _mean(data.rows, chosen, over, lambda x: x).float()
        variance = _mean(data.rows, chosen, over, lambda x: (x - data.mean) ** 2)
        std = variance.sqrt().float()
        data.std = torch.where(std > 0, std, torch.ones_like(std))
    declared: Tensor | None = getattr(data.rows, "targets", None)  # of all rows, without reading them
    if y.is_floating_point():
        y = data.rows.batch(chosen)[1] if declared is None else declared[torch.from_numpy(data.train)]
        data.target_mean = float(y.double().mean())
        data.target_std = float(y.double().std(correction=0)) or 1.0


def _mean(rows: Rows, chosen: Indices, over: tuple[int, ...], of: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the mean over rows and pixels in float64, a few rows at a time to bound memory."""
    at_once = max(1, STATISTICS_VALUES // math.prod(rows.shape))
    total = torch.zeros(1, dtype=torch.float64)
    count = 0
    for start in range(0, len(chosen), at_once):
        x = rows.batch(chosen[start : start + at_once])[0]
        assert isinstance(x, Tensor)
        x = x.double()
        total = total + of(x).sum(dim=over, keepdim=True)[0]
        count += x.numel() // x.shape[1]
    return total / count
