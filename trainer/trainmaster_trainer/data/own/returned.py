"""What a dataset of the user's returns, made into tensors or refused with the numbers of its rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainmaster_trainer.errors import DataError
from trainmaster_trainer.sample import Sample, apply

from .attributes import LARGEST, Attributes, some

Pair = tuple[Sample, int | float]
Layout = tuple[int, ...] | tuple[tuple[int, ...], ...] | dict[str, tuple[int, ...]]
Collate = Callable[[list[Any]], Any]


class _UnusableError(Exception):
    """Why a row can't be used."""


class Returned:
    """Makes tensors of what a dataset returns.

    Args:
        about: What the dataset says of itself.
        collate: The user's function that makes a batch of pairs; None: samples are stacked.
    """

    def __init__(self, about: Attributes, collate: Collate | None) -> None:
        self.about, self.collate = about, collate
        self.layout: Layout | None = None
        """Shapes of the first sample, which all others must have; None where samples are collated."""
        self._is_one, self._one_shape = True, tuple[int, ...]()

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of a sample that is one tensor; empty where samples differ or are several tensors."""
        return self._one_shape if self._is_one else ()

    @property
    def note(self) -> str:
        """Return what becomes of the samples, if that isn't the usual; else an empty string."""
        if self.collate is not None:
            return "samples are collated by the dataset and not scaled"
        if isinstance(self.layout, dict):
            return f"a sample is several tensors ({', '.join(self.layout)}), which are not scaled"
        if not self._is_one:
            return f"a sample is {len(self.layout or ())} tensors, which are not scaled"
        return ""

    def begin(self, number: int, item: Any) -> None:
        """Learn from the first row what a sample is.

        Raises:
            DataError: It can't be used.
        """
        if self.collate is None:
            (x, _) = self.pairs([(number, item)])[0]
            self.layout = _layout(x)
            self._is_one, self._one_shape = isinstance(x, Tensor), tuple(x.shape) if isinstance(x, Tensor) else ()
            return
        x, _ = self.batch([(number, item)])
        # what is collated may be of any size, unless the dataset says that it isn't
        self._is_one, self._one_shape = isinstance(x, Tensor), self.about.shape or ()

    def batch(self, items: Sequence[tuple[int, Any]]) -> tuple[Sample, Tensor]:
        """Return samples and targets of rows, each given with its number.

        Raises:
            DataError: A row, or what `collate` made of them, can't be used.
        """
        numbers = [number for number, _ in items]
        if self.collate is not None:
            for number, item in items:
                self._require_pair(number, item)
            return self.made(numbers, self.collate([tuple(item) for _, item in items]))
        pairs = self.pairs(items)
        samples = [x for x, _ in pairs]
        first = samples[0]
        x: Sample
        if isinstance(first, Tensor):
            x = torch.stack(samples)  # type: ignore[arg-type]  # all are of one kind
            self._require_finite(numbers, x)
            self._require_tokens(numbers, x)
        elif isinstance(first, dict):
            x = {name: torch.stack([each[name] for each in samples]) for name in first}  # type: ignore[index, call-overload]
        else:
            x = tuple(torch.stack([each[at] for each in samples]) for at in range(len(first)))  # type: ignore[index]
        targets = torch.tensor([y for _, y in pairs], dtype=torch.int64 if self.about.is_classes else torch.float64)
        self._require_targets(numbers, targets)
        return x, targets

    def pairs(self, items: Sequence[tuple[int, Any]]) -> list[Pair]:
        """Return each row as tensors and a number.

        Raises:
            DataError: Some rows can't be used; with the first of them.
        """
        found, problems = list[Pair](), list[str]()
        for number, item in items:
            try:
                found.append(self._pair(number, item))
            except _UnusableError as wrong:
                problems.append(str(wrong))
        if problems:
            raise self._error(some(problems))
        return found

    def made(self, numbers: Sequence[int], result: Any) -> tuple[Sample, Tensor]:
        """Return a batch that the user's code made: by `collate`, or whole by `batch`.

        Args:
            numbers: Rows that it was asked for.
            result: What came back.

        Raises:
            DataError: It isn't (samples, targets) of those rows.
        """
        what, rows = "collate" if self.collate is not None else "batch", len(numbers)
        some_rows = (
            f"{self.about.unit}s {numbers[0]} .. {numbers[-1]}" if rows > 1 else f"{self.about.unit} {numbers[0]}"
        )
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise self._error(f"{what} returned a {type(result).__name__} for {some_rows}; expected (samples, targets)")
        y = result[1]
        try:
            if isinstance(result[0], list):
                raise _UnusableError("a list")
            x = _sample(result[0])
        except (_UnusableError, TypeError, ValueError, RuntimeError) as error:
            raise self._error(
                f"{what} returned samples that can't be used ({error}) for {some_rows}; expected a tensor, a tuple or "
                "a dict of tensors"
            ) from None
        parts = [x] if isinstance(x, Tensor) else list(x.values()) if isinstance(x, dict) else list(x)
        sizes = [len(part) if part.dim() else 0 for part in parts]
        if rows not in sizes:
            raise self._error(f"{what} returned {' and '.join(map(str, sizes))} samples for {rows} rows ({some_rows})")
        shape = self.about.shape
        if isinstance(x, Tensor) and shape is not None and tuple(x.shape[1:]) != shape:
            raise self._error(
                f"{what} returned samples of shape {list(x.shape[1:])} for {some_rows}; `shape` is {list(shape)}"
            )
        targets = self._targets(numbers, y, what, some_rows)
        if isinstance(x, Tensor):
            self._require_tokens(numbers, x)
        return x, targets

    # -- a row --------------------------------------------------------------------------------------------------
    def _pair(self, number: int, item: Any) -> Pair:
        unit = self.about.unit
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise _UnusableError(f"{unit} {number} is a {type(item).__name__}; expected a pair (sample, target)")
        try:
            x = _sample(item[0])
            target = item[1].item() if isinstance(item[1], Tensor | np.generic | np.ndarray) else item[1]
        except (_UnusableError, TypeError, ValueError, RuntimeError) as error:
            raise _UnusableError(f"{unit} {number} can't be converted to a tensor and a number: {error}") from None
        if isinstance(x, Tensor) and x.dim() == 0:
            raise _UnusableError(
                f"the sample of {unit} {number} is a single number; expected an array, such as [{x.item():g}]"
            )
        layout = _layout(x)
        if self.layout is not None and layout != self.layout:
            raise _UnusableError(
                f"{unit} {number} has shape {_shown(layout)} and {unit} 0 {_shown(self.layout)}; all {unit}s must have "
                "the same shape, unless the dataset has `collate`"
            )
        return x, self._target(number, target)

    def _target(self, number: int, y: Any) -> int | float:
        unit, is_classes, last = self.about.unit, self.about.is_classes, len(self.about.labels) - 1
        if isinstance(y, bool):
            y = int(y)
        if not isinstance(y, int | float):
            of = ", the class's index" if is_classes else ""
            raise _UnusableError(f"the target of {unit} {number} is a {type(y).__name__}; expected a number{of}")
        if is_classes and not (0 <= y <= last and y == int(y)):  # false for NaN, too
            raise _UnusableError(f"{unit} {number} has class {y}; expected 0 .. {last} (task.numClasses)")
        if not math.isfinite(y) or abs(y) > LARGEST:
            raise _UnusableError(f"the target of {unit} {number} is {y}; expected a finite number, not beyond float32")
        return y

    def _require_pair(self, number: int, item: Any) -> None:
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise self._error(
                f"{self.about.unit} {number} is a {type(item).__name__}; expected a pair (sample, target)"
            )

    # -- a batch ------------------------------------------------------------------------------------------------
    def _targets(self, numbers: Sequence[int], y: Any, what: str, some_rows: str) -> Tensor:
        y = torch.from_numpy(y) if isinstance(y, np.ndarray) and y.dtype.kind in "biuf" else y
        if not isinstance(y, Tensor):
            raise self._error(
                f"{what} returned targets that are a {type(y).__name__} for {some_rows}; expected a tensor"
            )
        if tuple(y.shape) != (len(numbers),):
            raise self._error(
                f"{what} returned targets of shape {list(y.shape)} for {len(numbers)} rows ({some_rows}); "
                f"expected [{len(numbers)}]"
            )
        if y.dtype.is_complex:
            raise self._error(f"{what} returned targets of type {y.dtype} for {some_rows}; expected numbers")
        found = y.detach().to(torch.float64 if y.is_floating_point() else torch.int64)
        problems = list[str]()
        for number, value in zip(numbers, found.tolist(), strict=True):
            try:
                self._target(number, value)
            except _UnusableError as wrong:
                problems.append(str(wrong))
        if problems:
            raise self._error(some(problems))
        found = found.to(torch.int64 if self.about.is_classes else torch.float64)
        self._require_targets(numbers, found)
        return found

    def _require_targets(self, numbers: Sequence[int], found: Tensor) -> None:
        """Reject targets that aren't those which the dataset has declared: the split has gone by them."""
        if self.about.targets is None:
            return
        declared = self.about.targets[torch.tensor(numbers)]
        wrong = (declared.float() != found.float()).nonzero().flatten().tolist()
        if wrong:
            problems = [
                f"row {numbers[at]} has target {found[at].item()} and {declared[at].item()} there" for at in wrong
            ]
            raise self._error(f"`targets` differ from the rows: {some(problems)}")

    def _require_finite(self, numbers: Sequence[int], x: Tensor) -> None:
        if not x.is_floating_point() or bool(torch.isfinite(x.sum())):
            return
        wrong = (~torch.isfinite(x).flatten(1).all(dim=1)).nonzero().flatten().tolist()
        if wrong:  # else only the sum has overflowed
            problems = [f"the sample of {self.about.unit} {numbers[at]} has a value that isn't finite" for at in wrong]
            raise self._error(some(problems))

    def _require_tokens(self, numbers: Sequence[int], x: Tensor) -> None:
        if not self.about.vocabulary or x.is_floating_point():
            return
        wrong = (((x < 0) | (x >= self.about.vocabulary)).flatten(1).any(dim=1)).nonzero().flatten().tolist()
        if wrong:
            unit, last = self.about.unit, self.about.vocabulary - 1
            problems = [
                f"{unit} {numbers[at]} has tokens {int(x[at].min())} .. {int(x[at].max())}, expected 0 .. {last}"
                for at in wrong
            ]
            raise self._error(f"{some(problems)} (`vocabulary`)")

    def _error(self, sentence: str) -> DataError:
        return DataError(f"data.class {self.about.label}: {sentence}")


def _sample(value: Any) -> Sample:
    """Return a sample as tensors; raises what `_pair` and `made` put into words."""
    if isinstance(value, Mapping):
        if not value or not all(isinstance(name, str) and name.isidentifier() for name in value):
            raise _UnusableError("the keys of a dict are the names of the model's arguments")
        return apply({name: _tensor(each) for name, each in value.items()}, _float32)
    if isinstance(value, tuple) and value and all(isinstance(each, Tensor | np.ndarray) for each in value):
        return apply(tuple(_tensor(each) for each in value), _float32)
    x = _tensor(value)
    # whole numbers may be tokens, which an embedding wants as they are; bytes are pixels
    return x.float() if x.dtype in (torch.uint8, torch.bool) else _float32(x)


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        found = value.detach()
    else:
        array = np.asarray(value, order="C")  # a flipped view has negative strides, which torch rejects
        if array.dtype.kind == "u" and array.dtype.itemsize in (2, 4):
            array = array.astype(np.int64)
        found = torch.from_numpy(array if array.flags.writeable else array.copy())
    if found.dtype.is_complex:
        raise TypeError(f"{found.dtype} is no type of a sample")
    return found


def _float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float64, torch.float16) else x


def _layout(x: Sample) -> Layout:
    if isinstance(x, Tensor):
        return tuple(x.shape)
    if isinstance(x, dict):
        return {name: tuple(each.shape) for name, each in x.items()}
    return tuple(tuple(each.shape) for each in x)


def _shown(layout: Layout) -> str:
    if isinstance(layout, dict):
        return ", ".join(f"{name} {list(shape)}" for name, shape in layout.items())
    if layout and isinstance(layout[0], tuple):
        return " and ".join(str(list(shape)) for shape in layout)
    return str(list(layout))
