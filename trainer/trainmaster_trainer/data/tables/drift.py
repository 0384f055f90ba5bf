"""New rows of a packaged model against the train split: types, missing values, range, categories, distribution.

The statistics are a few numbers a column, whatever the number of rows and categories; they are packaged in `data.json`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainmaster_trainer.data.checks import Finding
from trainmaster_trainer.data.sentences import MOST_NAMED

from .cells import Codes, Floats, categories, is_missing, numbers, shown
from .codes import CategoricalCode, Code
from .encode import Encoder
from .table import Column, ColumnType, Table
from .unseen import named, unseen

THRESHOLD = 0.2  # of the population stability index, by custom a change that is worth looking at
LEAST_ROWS = 100  # of the train split and of the new rows
LEAST_SHARE = 1e-4  # smaller shares count as this one: the logarithm of none is infinite
MOST_CATEGORIES = 20  # that have a bin of their own; the others share one
MOST_ROWS = 3  # that a sentence names
_DECILES = np.arange(1, 10) / 10

_NARROWER: dict[ColumnType, tuple[ColumnType, ...]] = {
    ColumnType.NUMBER: (ColumnType.INTEGER,),
    ColumnType.TEXT: (ColumnType.INTEGER, ColumnType.NUMBER),
}
"""Types that a few rows may have by chance, by the type of the train split: numbers that are all whole."""


@dataclass(frozen=True)
class Statistics:
    """What the train split says of a feature's column.

    Attributes:
        name: Of the column; `type` is the type that it was trained with.
        rows: Number of rows of the train split.
        missing: How many of them have no value.
        low: Smallest number; a time is its microseconds since 1970. None: a categorical column.
        high: Largest number.
        edges: The deciles of the numbers, each once: bins reach from one, exclusive, to the next, inclusive.
        points: Those of `edges` that are several deciles: a bin of their own, because many rows have this value.
        categories: The most frequent categories, one bin each.
        counts: Number of rows in each bin: those of numbers in order, or those of `categories` and one for all others;
            then one for missing values.
    """

    name: str
    type: ColumnType
    rows: int
    missing: int
    low: float | None = None
    high: float | None = None
    edges: tuple[float, ...] = ()
    points: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()

    @classmethod
    def fit(cls, code: Code, column: Column, train: Codes) -> Statistics:
        """Measure the train split.

        Args:
            code: The column's encoding.
            column: The column.
            train: Row numbers of the train split in the table.
        """
        missing = int(is_missing(column)[train].sum())
        if isinstance(code, CategoricalCode):
            names, found = categories(column)
            sizes = np.bincount(found[train][found[train] >= 0], minlength=len(names))
            most = np.argsort(-sizes, kind="stable")[:MOST_CATEGORIES]
            frequent = tuple(names[index] for index in most.tolist() if sizes[index])
            plain = cls(code.name, code.type, len(train), missing, categories=frequent)
            return dataclasses.replace(plain, counts=tuple(plain._of_categories(names, found[train]).tolist()))
        values = numbers(column)[train]
        present = values[~np.isnan(values)]
        deciles = np.quantile(present, _DECILES, method="inverted_cdf")
        edges, times = np.unique(deciles, return_counts=True)
        plain = cls(
            code.name, code.type, len(train), missing, float(present.min()), float(present.max()),
            tuple(edges.tolist()), tuple(edges[times > 1].tolist()),
        )  # fmt: skip
        return dataclasses.replace(plain, counts=tuple(plain._of_numbers(values).tolist()))

    def bins(self, column: Column) -> npt.NDArray[np.int64]:
        """Return how many of new rows are in each bin."""
        if self.low is None:
            return self._of_categories(*categories(column))
        return self._of_numbers(numbers(column))

    def _of_numbers(self, values: Floats) -> npt.NDArray[np.int64]:
        present = values[~np.isnan(values)]
        place = np.searchsorted(self.edges, present, side="left") + np.searchsorted(self.points, present, side="right")
        found = np.bincount(place, minlength=len(self.edges) + len(self.points) + 1)
        return np.append(found, len(values) - len(present))

    def _of_categories(self, names: Sequence[str], found: Codes) -> npt.NDArray[np.int64]:
        number = {category: index for index, category in enumerate(self.categories)}
        other = len(self.categories)
        # -1, a missing value, is the table's last entry
        place = np.array([*(number.get(name, other) for name in names), other + 1], dtype=np.int64)
        return np.bincount(place[found], minlength=other + 2)

    def wire(self) -> dict[str, Any]:
        """Return what `read` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def read(cls, wire: dict[str, Any]) -> Statistics:
        """Return the statistics that were written."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in wire.items()
        }
        return cls(**(fields | {"type": ColumnType(wire["type"])}))


def statistics_of(encoder: Encoder, table: Table, train: Codes) -> tuple[Statistics, ...]:
    """Return the statistics of the train split, one for each column that the model sees."""
    return tuple(Statistics.fit(code, table.column(code.name), train) for code in encoder.codes)


def stability_index(expected: npt.NDArray[Any], found: npt.NDArray[Any]) -> float:
    """Return the population stability index of two counts by bin: the sum of (b - a) ln(b / a) over their shares."""
    a, b = (np.maximum(each / each.sum(), LEAST_SHARE) for each in (expected, found))
    return float(((b - a) * np.log(b / a)).sum())


def compare(encoder: Encoder, statistics: Sequence[Statistics], table: Table) -> list[Finding]:
    """Return in what new rows differ from the train split, in the order of the columns.

    Args:
        encoder: Of the model; `transform` has accepted the table.
        statistics: Of the train split.
        table: The new rows.
    """
    known = {each.name: each for each in statistics}
    return [
        finding
        for code in encoder.codes
        if code.name in known and len(table)
        for finding in _of_column(code, known[code.name], table.column(code.name), table)
    ]


def _of_column(code: Code, known: Statistics, column: Column, table: Table) -> Iterator[Finding]:
    if column.type not in (known.type, *_NARROWER.get(known.type, ()), ColumnType.EMPTY):
        words = f"is of type {column.type}, and was {known.type} in training"
        yield _finding("type", column, words, {"type": str(column.type), "trained": str(known.type)})
    absent = is_missing(column)
    if absent.any() and not known.missing:
        words = f"{_share(absent)} have no value ({_rows(absent, table)}), and in training each had one"
        yield _finding("missing", column, words, {"rows": int(absent.sum())})
    if isinstance(code, CategoricalCode):
        yield from _unseen(code, column, len(table))
    else:
        assert known.low is not None
        assert known.high is not None
        values = numbers(column)
        outside = (values < known.low) | (values > known.high)
        if outside.any():
            show = lambda row: f" ({shown(column.values[row].as_py())})"  # noqa: E731
            span = f"{_value(known.low, known.type)} .. {_value(known.high, known.type)}"
            words = f"{_share(outside)} are outside of the range of training, {span}: {_rows(outside, table, show)}"
            yield _finding("range", column, words, {"rows": int(outside.sum())})
    yield from _drift(known, column, len(table))


def _unseen(code: CategoricalCode, column: Column, rows: int) -> Iterator[Finding]:
    names, sizes = unseen(code.categories, *categories(column))
    if names:
        words = f"{_of(sum(sizes), rows)} have a category that training didn't have: {named(names, sizes)}"
        yield _finding("unseen", column, words, {"rows": sum(sizes), "categories": names[:MOST_NAMED]})


def _drift(known: Statistics, column: Column, rows: int) -> Iterator[Finding]:
    """Yield a column whose index is above the threshold by more than chance gives to so few rows."""
    if min(rows, known.rows) < LEAST_ROWS:
        return
    expected, found = np.array(known.counts), known.bins(column)
    index = stability_index(expected, found)
    # of two samples of one distribution: (bins - 1) (1 / rows of one + 1 / rows of the other), in the mean
    chance = (np.count_nonzero(expected + found) - 1) * (1 / known.rows + 1 / rows)
    if index >= THRESHOLD + chance:
        shares = found / rows - expected / known.rows
        words = f"is distributed differently than in training: {_largest(known, shares, expected, found)} " + (
            f"(population stability index {index:.2f}; from {THRESHOLD + chance:.2f} on it is said)"
        )
        yield _finding("drift", column, words, {"index": round(index, 6)})


def _largest(known: Statistics, shares: Floats, expected: npt.NDArray[Any], found: npt.NDArray[Any]) -> str:
    """Say which bin has changed most."""
    at = int(np.argmax(np.abs(shares)))
    if at == len(shares) - 1:
        what = "missing values"
    elif known.low is None:
        what = f"category {shown(known.categories[at])}" if at < len(known.categories) else "other categories"
    else:
        what = f"values {_interval(known, at)}"
    return f"{what} are {found[at] / found.sum():.1%} of the rows, {expected[at] / expected.sum():.1%} in training"


def _interval(known: Statistics, at: int) -> str:
    """Return the bounds of a bin of numbers."""
    bounds = [bound for edge in known.edges for bound in ([edge] * (2 if edge in known.points else 1))]
    low, high = (None if at == 0 else bounds[at - 1]), (None if at == len(bounds) else bounds[at])
    words = [None if bound is None else _value(bound, known.type) for bound in (low, high)]
    if low is not None and low == high:
        return f"equal to {words[0]}"
    is_point = high in known.points  # a bin of its own, so this one ends before it
    upper = None if words[1] is None else f"{'below' if is_point else 'up to'} {words[1]}"
    return " ".join(part for part in (None if words[0] is None else f"above {words[0]}", upper) if part)


def _finding(kind: str, column: Column, words: str, details: dict[str, Any]) -> Finding:
    return Finding("warn", f"column {column.name}: {words}", {"kind": kind, "column": column.name, **details})


def _share(mask: npt.NDArray[np.bool_]) -> str:
    return _of(int(mask.sum()), len(mask))


def _of(count: int, rows: int) -> str:
    return f"{count:,} of {rows:,} rows ({count / rows:.1%})"


def _rows(mask: npt.NDArray[np.bool_], table: Table, show: Callable[[int], str] = lambda _: "") -> str:
    rows = np.flatnonzero(mask)[:MOST_ROWS].tolist()
    return ", ".join(f"{table.where(row)}{show(row)}" for row in rows) + (", ..." if mask.sum() > len(rows) else "")


def _value(value: float, kind: ColumnType) -> str:
    if kind is ColumnType.TIME:
        return str(np.datetime64(int(value), "us").astype("datetime64[s]")).replace("T", " ")
    return f"{value:.6g}"
