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

from trainmaster_trainer.data.finding import Finding
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
        if isinstance(code, CategoricalCode):
            names, found = categories(column)
            return cls.of_categories(code.name, code.type, names, *_sizes(names, found[train]), len(train))
        return cls.of_numbers(code.name, code.type, numbers(column)[train])

    @classmethod
    def of_categories(
        cls, name: str, kind: ColumnType, names: Sequence[str], sizes: Codes, missing: int, rows: int
    ) -> Statistics:
        """Measure categories.

        Args:
            name: Of what is measured.
            kind: Its type.
            names: Of the categories.
            sizes: How often each is there.
            missing: How many values are missing.
            rows: Number of rows; one may have many values.
        """
        most = np.argsort(-sizes, kind="stable")[:MOST_CATEGORIES]
        frequent = tuple(names[index] for index in most.tolist() if sizes[index])
        plain = cls(name, kind, rows, missing, categories=frequent)
        return dataclasses.replace(plain, counts=tuple(plain.bins_of_categories(names, sizes, missing).tolist()))

    @classmethod
    def of_numbers(cls, name: str, kind: ColumnType, values: Floats) -> Statistics:
        """Measure numbers, one for each row; NaN where one is missing, but not everywhere."""
        present = values[~np.isnan(values)]
        deciles = np.quantile(present, _DECILES, method="inverted_cdf")
        edges, times = np.unique(deciles, return_counts=True)
        plain = cls(
            name, kind, len(values), len(values) - len(present), float(present.min()), float(present.max()),
            tuple(edges.tolist()), tuple(edges[times > 1].tolist()),
        )  # fmt: skip
        return dataclasses.replace(plain, counts=tuple(plain.bins_of_numbers(values).tolist()))

    def bins(self, column: Column) -> npt.NDArray[np.int64]:
        """Return how many of new rows are in each bin."""
        if self.low is None:
            names, found = categories(column)
            return self.bins_of_categories(names, *_sizes(names, found))
        return self.bins_of_numbers(numbers(column))

    def bins_of_numbers(self, values: Floats) -> npt.NDArray[np.int64]:
        """Return how many of some numbers are in each bin."""
        # a comparison is false for NaN; of nine edges each is compared in a tenth of the time of a search
        below = [0]
        for edge in self.edges:
            if edge in self.points:
                below.append(int(np.count_nonzero(values < edge)))
            below.append(int(np.count_nonzero(values <= edge)))
        missing = int(np.count_nonzero(np.isnan(values)))
        return np.append(np.diff([*below, len(values) - missing]), missing)

    def bins_of_categories(self, names: Sequence[str], sizes: Codes, missing: int) -> npt.NDArray[np.int64]:
        """Return how many of some values are in each bin; arguments as for `of_categories`."""
        number = {category: index for index, category in enumerate(self.categories)}
        other = len(self.categories)
        place = np.array([number.get(name, other) for name in names], dtype=np.int64)
        found = np.bincount(place, weights=sizes, minlength=other + 1).astype(np.int64)
        return np.append(found, missing)

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


def _sizes(names: Sequence[str], found: Codes) -> tuple[Codes, int]:
    """Return how often each category is there, and how many values are missing (-1)."""
    sizes = np.bincount(found[found >= 0], minlength=len(names))
    return sizes, int(np.count_nonzero(found < 0))


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
    if found := drifted(known, known.bins(column), rows):
        yield _finding("drift", column, *found)


def drifted(
    known: Statistics,
    counts: npt.NDArray[Any],
    rows: int,
    name_of: Callable[[str], str] = lambda category: f"category {shown(category)}",
    of: str = "rows",
) -> tuple[str, dict[str, Any]] | None:
    """Say that an index is above the threshold by more than chance gives to so few rows; None: it isn't.

    Args:
        known: Statistics of the train split.
        counts: Of the new rows, by bin.
        rows: Number of the new rows.
        name_of: Returns what a category is called.
        of: What is counted in the bins.
    """
    if min(rows, known.rows) < LEAST_ROWS:
        return None
    expected = np.array(known.counts)
    index = stability_index(expected, counts)
    # of two samples of one distribution: (bins - 1) (1 / rows of one + 1 / rows of the other), in the mean
    chance = (np.count_nonzero(expected + counts) - 1) * (1 / known.rows + 1 / rows)
    if index < THRESHOLD + chance:
        return None
    before, now = expected / expected.sum(), counts / counts.sum()
    at = int(np.argmax(np.abs(now - before)))
    words = (
        f"is distributed differently than in training: {_bin(known, at, name_of)} {now[at]:.1%} of the {of}, "
        f"{before[at]:.1%} in training (population stability index {index:.2f}; from {THRESHOLD + chance:.2f} on it is "
        "said)"
    )
    return words, {"index": round(index, 6)}


def _bin(known: Statistics, at: int, name_of: Callable[[str], str]) -> str:
    """Return the name of a bin, with its verb."""
    if at == len(known.counts) - 1:
        return "missing values are"
    if known.low is not None:
        return f"values {_interval(known, at)} are"
    if at == len(known.categories):
        return "all others are"
    return f"{name_of(known.categories[at])} is"


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
