"""A target among the features: copies of it, rows in its order, a feature that predicts it alone.

Scores look at no more than `SCORED_ROWS` rows of a split; everything else at every row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .duplicates import codes_of
from .finding import Checked, Finding
from .order import Indices
from .scores import Score, alone
from .tables.distinct import Places, is_long, pick, pick_hashes, row_hashes
from .tables.table import Column, ColumnType

LEAST_ROWS = 20  # fewer say nothing: a random feature would look like the target
SCORED_ROWS = 100_000
SCREENED_ROWS = 1_000
SUSPICIOUS = 0.98  # a single feature with this score or more is named: AUC, balanced accuracy or R2
LINEAR = 1e-6  # a linear copy misses no value by more than this share of the target's range
MIXED = 0.01  # rows are sorted by class if at most this share of them, besides one per class, begins another class
_ORDERED = (ColumnType.INTEGER, ColumnType.NUMBER, ColumnType.TIME)
_UNCOMPARED = (ColumnType.OTHER, ColumnType.EMPTY)
_NUMERIC = (*_ORDERED, ColumnType.BOOLEAN)


def refused(asked: Checked, name: str, words: str) -> Finding:
    """Return the refusal of a feature that is the target."""
    sentence = (
        f"feature `{name}` {words}: the model would see the answer. Remove it from data.features, or set "
        f"data.columns.{name}.role: ignore"
    )
    return Finding("refuse", sentence, {"kind": "target-copy", "column": name, "target": asked.target.name})


def copy_of_target(asked: Checked, feature: Column) -> str:
    """Return in which way a feature is the target; empty if it isn't. Rows without one of both don't count."""
    target = asked.target
    if feature.type in _UNCOMPARED or target.type in _UNCOMPARED:
        return ""
    known = pc.and_(pc.is_valid(feature.values), pc.is_valid(target.values))
    rows = pc.sum(known).as_py() or 0
    if rows < LEAST_ROWS or rows < len(asked.table) / 2:
        return ""
    some = "" if rows == len(asked.table) else f" in the {rows:,} rows where both have a value"
    for count in (SCREENED_ROWS, SCORED_ROWS):  # nearly no column gets further than the first
        first = _first(known, count)
        if not _may_be_copy(asked, feature, *(_some(each, first, feature, target) for each in (feature, target))):
            return ""
    x, y = (_all(each, feature, target).filter(known) for each in (feature, target))
    if feature.type is target.type and pc.all(pc.equal(x, y)).as_py():
        return f"is equal to the target `{target.name}`{some}"
    # what isn't one to one in some rows isn't in all
    if _mapped(x.slice(0, SCORED_ROWS), y.slice(0, SCORED_ROWS)) and 2 <= _mapped(x, y) <= rows / 2:
        return f"has a value of its own for each value of the target `{target.name}`{some}"
    if not asked.is_classification and feature.type in _NUMERIC and target.type in _NUMERIC and _is_linear(x, y):
        return f"is the target `{target.name}` times a constant plus a constant{some}"
    return ""


def _is_hashed(column: Column, *both: Column) -> bool:
    """Return whether hashes are compared, which are equal where texts are: of texts that may not fit into memory."""
    return column.type is ColumnType.TEXT and any(map(is_long, both))


def _some(column: Column, rows: Indices, *both: Column) -> pa.Array:
    return pick_hashes(column, rows) if _is_hashed(column, *both) else pick(column.values, rows)


def _all(column: Column, *both: Column) -> pa.ChunkedArray:
    if not _is_hashed(column, *both):
        return column.values
    return pa.chunked_array([pa.array(row_hashes([column], len(column.values)))])


def _first(mask: pa.ChunkedArray, count: int) -> Indices:
    """Return the first rows of a mask."""
    found: list[Indices] = []
    start = 0
    for chunk in mask.iterchunks():
        found.append(np.flatnonzero(chunk.to_numpy(zero_copy_only=False)) + start)
        start += len(chunk)
        if sum(map(len, found)) >= count:
            break
    return np.concatenate(found)[:count]


def _may_be_copy(asked: Checked, feature: Column, x: pa.Array, y: pa.Array) -> bool:
    """Return whether a feature may be a copy, by some rows: what isn't one there isn't one in all."""
    target = asked.target
    if feature.type is target.type and pc.all(pc.equal(x, y)).as_py():
        return True
    if _mapped(pa.chunked_array([x]), pa.chunked_array([y])):
        return True
    if asked.is_classification or feature.type not in _NUMERIC or target.type not in _NUMERIC:
        return False
    a, b = (_floats(pa.chunked_array([each])) for each in (x, y))
    edges = pc.min_max(target.values if target.type is not ColumnType.BOOLEAN else target.values.cast(pa.int8()))
    low, high = (_floats(pa.chunked_array([pa.array([edges[name]], edges[name].type)]))[0] for name in ("min", "max"))
    with np.errstate(all="ignore"):
        a, b = a - a.mean(), b - b.mean()
        power = float(a @ a)
        # the line through these rows is at least as close to them, squared, as that through all rows
        missed = np.sqrt(float(np.mean((b - a * float(a @ b) / power) ** 2))) if power else 0.0
        return not missed > LINEAR * (high - low)


def _mapped(x: pa.ChunkedArray, y: pa.ChunkedArray) -> int:
    """Return the number of different values where those of x stand for those of y, one to one; else 0."""
    a, b = codes_of(x), codes_of(y)
    values = int(b.max()) + 1
    return values if int(a.max()) + 1 == values and len(np.unique(a * values + b)) == values else 0


def _is_linear(x: pa.ChunkedArray, y: pa.ChunkedArray) -> bool:
    a, b = _floats(x), _floats(y)
    with np.errstate(all="ignore"):  # numbers near the end of the range overflow here; reading refuses them
        a, b = a - a.mean(), b - b.mean()
        spread, power = float(np.ptp(b)), float(a @ a)
        if not (np.isfinite(power) and np.isfinite(spread)) or spread == 0 or power == 0:
            return False
        return float(np.abs(b - a * float(a @ b) / power).max()) <= LINEAR * spread


def _floats(values: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Return numbers and times as floats; null is NaN."""
    if pa.types.is_timestamp(values.type):
        values = pc.cast(values, pa.int64())
    return np.asarray(pc.cast(values, pa.float64(), safe=False).to_numpy(), np.float64)


# -- a feature that alone predicts the target -------------------------------------------------------------------------


def sorted_by_target(asked: Checked, skipped: set[str]) -> Iterator[tuple[str, Finding]]:
    """Yield columns that number or date the rows, along which the rows are sorted by target."""
    target = asked.target
    columns = [column for column in asked.features if column.name not in skipped]
    if asked.time is not None and asked.time not in {column.name for column in columns}:
        columns.append(asked.table.column(asked.time))
    if len(asked.table) < LEAST_ROWS or target.type in _UNCOMPARED:
        return
    scored = _scored_rows(asked)
    for column in columns:
        if column.type not in _ORDERED or column.values.null_count:
            continue
        # numbers or dates of rows: whole, and no two alike; measured numbers are judged by their score
        if column.name != asked.time and not _is_index(_floats(column.values.slice(0, SCORED_ROWS))):
            continue
        x = _floats(column.values)
        is_index, order = _is_index(x), np.argsort(x, kind="stable")
        if not (is_index or column.name == asked.time) or not _is_sorted(asked, order):
            continue
        details: dict[str, Any] = {"kind": "sorted-by-target", "column": column.name, "target": target.name}
        if column.name == asked.time:
            words = (
                f"along `{column.name}` the rows are sorted by the target `{target.name}`, so a split by time trains "
                "on other targets than it tests; use data.split.by: stratified, random or group"
            )
        else:
            score = scored.score(column) if scored is not None else None
            alone_has = f" (alone it has {score} on validation)" if score is not None else ""
            words = (
                f"feature `{column.name}` numbers the rows, and along it they are sorted by the target "
                f"`{target.name}`: it gives the answer away{alone_has}. Set data.columns.{column.name}.role: ignore"
            )
            if score is not None:
                details |= {"measure": score.measure, "score": round(score.value, 6)}
        yield column.name, Finding("warn", words, details)


def _is_index(x: npt.NDArray[np.float64]) -> bool:
    return len(x) > 1 and bool(np.all(x == np.floor(x))) and bool(np.all(np.diff(np.sort(x)) > 0))


def _is_sorted(asked: Checked, order: Indices) -> bool:
    if not asked.is_classification:
        if asked.target.type not in _NUMERIC:
            return False
        steps = np.diff(_floats(asked.target.values)[order])
        return bool((np.all(steps >= 0) or np.all(steps <= 0)) and np.any(steps != 0))
    classes = codes_of(asked.target.values)
    number = int(classes.max()) + 1
    changes = int(np.count_nonzero(np.diff(classes[order])))
    return 2 <= number <= len(classes) / 10 and changes <= number - 1 + MIXED * len(classes)


class Scores:
    """Scores of features, each found when its column is read anyway."""

    def __init__(self, asked: Checked, skipped: set[str]) -> None:
        self._rows = _scored_rows(asked)
        self._found: dict[str, Score | None] = dict.fromkeys(skipped)
        self._features = {column.name: column for column in asked.features}

    def visit(self, column: Column) -> None:
        """Score a column if it is a feature."""
        feature = self._features.get(column.name)
        if self._rows is None or feature is None or feature.name in self._found:
            return
        self._found[feature.name] = None if feature.type in _UNCOMPARED else self._rows.score(feature)

    def of(self, column: Column) -> Score | None:
        """Return the score of a feature; None: it isn't scored."""
        self.visit(column)
        return self._found.get(column.name)


def predictors(asked: Checked, scores: Scores) -> Iterator[Finding]:
    """Yield features whose score alone is `SUSPICIOUS`."""
    for column in asked.features:
        score = scores.of(column)
        if score is not None and score.value >= SUSPICIOUS:
            words = (
                f"feature `{column.name}` alone predicts the target `{asked.target.name}`: {score} on validation. If "
                f"it isn't known when the model is used, set data.columns.{column.name}.role: ignore"
            )
            details = {"measure": score.measure, "score": round(score.value, 6)}
            yield Finding("warn", words, {"kind": "predictor", "column": column.name, **details})


@dataclass(frozen=True)
class _Scored:
    """Rows that features are scored on.

    Attributes:
        train: Rows of train that have a target; `held` those of validation.
        y: Class or number of each row of the table.
        classes: Number of classes; 0: a regression.
    """

    train: Indices
    held: Indices
    y: npt.NDArray[Any]
    classes: int

    @cached_property
    def _places(self) -> tuple[Places, Places]:
        return Places(self.train), Places(self.held)

    def score(self, column: Column) -> Score | None:
        """Return how well a column alone predicts the target."""
        parts: list[npt.NDArray[Any]]
        if column.type in _ORDERED:
            parts = [_floats(pa.chunked_array([places.pick(column.values)])) for places in self._places]
        else:
            rows = np.concatenate([self.train, self.held])
            both = codes_of(pa.chunked_array([_some(column, rows, column)]))
            parts = [both[: len(self.train)], both[len(self.train) :]]
        return alone(parts[0], self.y[self.train], parts[1], self.y[self.held], classes=self.classes)


def _scored_rows(asked: Checked) -> _Scored | None:
    """Return what features are scored on; None where there is too little of it."""
    train, held = (_with_target(rows, asked.target) for rows in (asked.division.train, asked.division.validation))
    if len(train) < LEAST_ROWS or len(held) < LEAST_ROWS:
        return None
    if not asked.is_classification:
        return _Scored(train, held, _floats(asked.target.values), 0) if asked.target.type in _NUMERIC else None
    codes = codes_of(asked.target.values)
    present = np.unique(codes[np.concatenate([train, held])])
    if len(present) < 2:
        return None
    return _Scored(train, held, np.searchsorted(present, codes), len(present))


def _with_target(rows: Indices, target: Column) -> Indices:
    some = rows[:SCORED_ROWS]  # a split is in random order
    if target.values.null_count:
        some = some[pick(target.values, some).is_valid().to_numpy(zero_copy_only=False)]
    return some


# -- between the splits -----------------------------------------------------------------------------------------------
