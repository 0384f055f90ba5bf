"""What is wrong with a split table before the first step: leaks that give scores which no new data reaches.

Pure: a table, the names of its columns and the split go in, findings come out. Scores look at no more than
`SCORED_ROWS` rows of a split; everything else at every row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from trainmaster_api.spec.data import SPLIT_WORDS

from .division import Division
from .duplicates import Copies, codes_of, copies, row_ids
from .order import Indices
from .scores import Score, alone
from .sentences import first_of, quoted
from .split import SPLITS
from .tables.distinct import pick
from .tables.table import Column, ColumnType, Table

LEAST_ROWS = 20  # fewer say nothing: a random feature would look like the target
SCORED_ROWS = 100_000
SUSPICIOUS = 0.98  # a single feature with this score or more is named: AUC, balanced accuracy or R2
LINEAR = 1e-6  # a linear copy misses no value by more than this share of the target's range
MIXED = 0.01  # rows are sorted by class if at most this share of them, besides one per class, begins another class
MOST_EXAMPLES = 3

_ORDERED = (ColumnType.INTEGER, ColumnType.NUMBER, ColumnType.TIME)
_UNCOMPARED = (ColumnType.OTHER, ColumnType.EMPTY)
_NUMERIC = (*_ORDERED, ColumnType.BOOLEAN)


@dataclass(frozen=True)
class Finding:
    """Something that a check found.

    Attributes:
        severity: `refuse`: nothing is trained on this; `warn`: it is said, and training goes ahead.
        sentence: What it is, and what to do next.
        details: The same for programs, as JSON has it: `kind`, columns, counts, scores.
    """

    severity: Literal["refuse", "warn"]
    sentence: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Checked:
    """A table as the checks look at it."""

    table: Table
    target: Column
    features: list[Column]
    division: Division
    is_classification: bool
    group: str | None
    time: str | None

    def classes(self) -> tuple[npt.NDArray[np.int64], list[str | None]]:
        """Return the class of each row as its position in the names of the classes; the name of null is None."""
        names = pc.unique(self.target.values).to_pylist()
        return codes_of(self.target.values), [None if name is None else str(name) for name in names]


def check(
    table: Table,
    target: str,
    features: Sequence[str],
    division: Division,
    *,
    is_classification: bool,
    group: str | None = None,
    time: str | None = None,
) -> list[Finding]:
    """Return what is wrong, what is refused first.

    Args:
        table: The rows, those of `validationSource` and `testSource` included.
        target: Name of the column to predict.
        features: Names of the columns to predict from.
        division: The split, with the numbers of the table's rows.
        is_classification: Whether the target is a class.
        group: Column with the role group, whatever the split goes by.
        time: Column that the split goes by, with `by: time`.
    """
    columns = [table.column(name) for name in features if name != target]
    asked = _Checked(table, table.column(target), columns, division, is_classification, group, time)
    found: list[Finding] = []
    if target in features:
        found.append(_refused(asked, target, "is the target itself"))
    copied = {}
    if len(table) >= LEAST_ROWS:
        copied = {column.name: words for column in columns if (words := _copy(asked, column))}
    found += [_refused(asked, name, words) for name, words in copied.items()]
    indexes = {} if asked.target.values.null_count else dict(_sorted_by_target(asked, set(copied)))
    found += indexes.values()
    found += _predictors(asked, {*copied, *indexes})
    found += _duplicates(asked)
    found += _groups(asked)
    found += _said_splits(asked)
    if is_classification:
        found += missing_classes(*asked.classes(), division)
    return found


# -- the target among the features ------------------------------------------------------------------------------------


def _refused(asked: _Checked, name: str, words: str) -> Finding:
    sentence = (
        f"feature `{name}` {words}: the model would see the answer. Remove it from data.features, or set "
        f"data.columns.{name}.role: ignore"
    )
    return Finding("refuse", sentence, {"kind": "target-copy", "column": name, "target": asked.target.name})


def _copy(asked: _Checked, feature: Column) -> str:
    """Return in which way a feature is the target; empty if it isn't. Rows without one of both don't count."""
    target = asked.target
    if feature.type in _UNCOMPARED or target.type in _UNCOMPARED:
        return ""
    known = pc.and_(pc.is_valid(feature.values), pc.is_valid(target.values))
    rows = pc.sum(known).as_py() or 0
    if rows < LEAST_ROWS or rows < len(asked.table) / 2:
        return ""
    some = "" if rows == len(asked.table) else f" in the {rows:,} rows where both have a value"
    first = _first(known, SCORED_ROWS)
    if not _may_be_copy(asked, feature, pick(feature.values, first), pick(target.values, first)):
        return ""
    x, y = feature.values.filter(known), target.values.filter(known)
    if feature.type is target.type and pc.all(pc.equal(x, y)).as_py():
        return f"is equal to the target `{target.name}`{some}"
    # what isn't one to one in some rows isn't in all
    if _mapped(x.slice(0, SCORED_ROWS), y.slice(0, SCORED_ROWS)) and 2 <= _mapped(x, y) <= rows / 2:
        return f"has a value of its own for each value of the target `{target.name}`{some}"
    if not asked.is_classification and feature.type in _NUMERIC and target.type in _NUMERIC and _is_linear(x, y):
        return f"is the target `{target.name}` times a constant plus a constant{some}"
    return ""


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


def _may_be_copy(asked: _Checked, feature: Column, x: pa.Array, y: pa.Array) -> bool:
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


def _sorted_by_target(asked: _Checked, skipped: set[str]) -> Iterator[tuple[str, Finding]]:
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


def _is_sorted(asked: _Checked, order: Indices) -> bool:
    if not asked.is_classification:
        if asked.target.type not in _NUMERIC:
            return False
        steps = np.diff(_floats(asked.target.values)[order])
        return bool((np.all(steps >= 0) or np.all(steps <= 0)) and np.any(steps != 0))
    classes = codes_of(asked.target.values)
    number = int(classes.max()) + 1
    changes = int(np.count_nonzero(np.diff(classes[order])))
    return 2 <= number <= len(classes) / 10 and changes <= number - 1 + MIXED * len(classes)


def _predictors(asked: _Checked, skipped: set[str]) -> Iterator[Finding]:
    """Yield features whose score alone is `SUSPICIOUS`."""
    scored = _scored_rows(asked)
    for column in asked.features if scored is not None else []:
        if column.name in skipped or column.type in _UNCOMPARED:
            continue
        assert scored is not None
        score = scored.score(column)
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

    def score(self, column: Column) -> Score | None:
        """Return how well a column alone predicts the target."""
        parts: list[npt.NDArray[Any]]
        if column.type in _ORDERED:
            parts = [_floats(pa.chunked_array([pick(column.values, rows)])) for rows in (self.train, self.held)]
        else:
            both = codes_of(pa.chunked_array([pick(column.values, np.concatenate([self.train, self.held]))]))
            parts = [both[: len(self.train)], both[len(self.train) :]]
        return alone(parts[0], self.y[self.train], parts[1], self.y[self.held], classes=self.classes)


def _scored_rows(asked: _Checked) -> _Scored | None:
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


def _duplicates(asked: _Checked) -> Iterator[Finding]:
    """Yield rows that are equal in all features and the target and are in two splits."""
    if not asked.features:
        return
    ids = row_ids([asked.target, *asked.features], len(asked.table))
    train, validation, test = asked.division.parts
    or_group = "" if asked.division.by == "sources" else ", or use data.split.by: group"
    leaked = copies(ids, train, np.concatenate([validation, test]))
    if len(leaked.rows):
        words = (
            f"{_count(leaked)} of train {_are(leaked)} of validation or test ({_pairs(asked, leaked)}): the scores "
            f"will be too good. Set data.dedupe: true to remove them from train{or_group}"
        )
        yield Finding("warn", words, _leak(leaked, "train"))
    shared = copies(ids, validation, test)
    if len(shared.rows):
        words = (
            f"{_count(shared)} of validation {_are(shared)} of test ({_pairs(asked, shared)}): the test isn't "
            f"independent of the choice of the checkpoint. Remove the copies from the data{or_group}"
        )
        yield Finding("warn", words, _leak(shared, "validation"))


def _count(found: Copies) -> str:
    return "1 row" if len(found.rows) == 1 else f"{len(found.rows):,} rows"


def _are(found: Copies) -> str:
    return "is an exact copy of a row" if len(found.rows) == 1 else "are exact copies of rows"


def _pairs(asked: _Checked, found: Copies) -> str:
    pairs = list(zip(found.rows[:MOST_EXAMPLES].tolist(), found.others[:MOST_EXAMPLES].tolist(), strict=True))
    some = "; ".join(f"{asked.table.where(a)} = {asked.table.where(b)}" for a, b in pairs)
    return some + ("; ..." if len(found.rows) > len(pairs) else "")


def _leak(found: Copies, split: str) -> dict[str, Any]:
    examples = [found.rows[:MOST_EXAMPLES].tolist(), found.others[:MOST_EXAMPLES].tolist()]
    return {"kind": "duplicates", "split": split, "rows": len(found.rows), "examples": examples}


def _groups(asked: _Checked) -> Iterator[Finding]:
    """Yield the groups that are in two splits."""
    if asked.group is None:
        return
    column = asked.table.column(asked.group)
    codes = codes_of(column.values)
    seen = np.zeros((3, int(codes.max()) + 1), bool)
    for side, rows in enumerate(asked.division.parts):
        seen[side, codes[rows]] = True
    split_groups = np.flatnonzero(seen.sum(axis=0) > 1)
    if not len(split_groups):
        return
    names = pc.unique(column.values)
    some = [str(names[int(index)].as_py()) for index in split_groups[:MOST_EXAMPLES]]
    remedy = "Move each group into one source"
    if asked.division.by != "sources":
        remedy = f"Set data.split.by: group; where a split has a source of its own, {remedy[0].lower()}{remedy[1:]}"
    words = (
        f"{len(split_groups):,} of {seen.shape[1]:,} groups of `{asked.group}` are in more than one split "
        f"({', '.join(some)}{', ...' if len(split_groups) > len(some) else ''}): the model is tested on groups that it "
        f"has seen. {remedy}"
    )
    yield Finding("warn", words, {"kind": "group", "column": asked.group, "groups": len(split_groups)})


def _said_splits(asked: _Checked) -> Iterator[Finding]:
    """Yield columns that say the split of each row where the split doesn't go by one."""
    known = {word for words in SPLIT_WORDS.values() for word in words}
    for column in asked.table.columns if asked.division.by != "column" else ():
        if column.type is not ColumnType.TEXT or column.name == asked.target.name:
            continue
        few = pc.unique(column.values.slice(0, LEAST_ROWS)).drop_null().to_pylist()
        if not few or not {word.strip().lower() for word in few} <= known:
            continue  # nearly every column
        words = [word for word in pc.unique(column.values).to_pylist() if word is not None]
        if len(words) < 2 or not {word.strip().lower() for word in words} <= known:
            continue
        is_feature = any(each.name == column.name for each in asked.features)
        sentence = (
            f"column `{column.name}` says {quoted(sorted(words))}, and the split doesn't go by it"
            f"{'; it is a feature' if is_feature else ''}: set data.split.by: column and data.split.column: "
            f"{column.name}, or data.columns.{column.name}.role: ignore"
        )
        yield Finding("warn", sentence, {"kind": "split-column", "column": column.name})


def missing_classes(codes: npt.NDArray[np.int64], names: Sequence[str | None], division: Division) -> Iterator[Finding]:
    """Yield for each split the classes that it lacks.

    Args:
        codes: Class of each row as its position in `names`.
        names: Names of the classes; None: rows without a class.
        division: The split.
    """
    sizes = np.bincount(codes, minlength=len(names))
    for name, rows in zip(SPLITS, division.parts, strict=True):
        present = np.zeros(len(names), bool)
        present[codes[rows]] = True
        lacking = [index for index in np.flatnonzero(~present & (sizes > 0)).tolist() if names[index] is not None]
        if not lacking:
            continue
        some = first_of([f"`{names[index]}` ({sizes[index]:,} rows)" for index in lacking], between=", ")
        why = "can't be learned" if name == "train" else "don't count in its metrics"
        remedy = "Add" if division.by == "sources" else "Set data.split.by: stratified, or add"
        words = f"the {name} split has no row of class {some}: they {why}. {remedy} rows of them"
        details = {"kind": "missing-class", "split": name, "classes": [names[index] for index in lacking]}
        yield Finding("warn", words, details)
