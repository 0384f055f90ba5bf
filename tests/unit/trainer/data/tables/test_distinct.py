"""Distinct values, equal rows and chosen rows of large columns, against plain Python."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from trainmaster_trainer.data import duplicates
from trainmaster_trainer.data.tables import distinct
from trainmaster_trainer.data.tables.distinct import count_distinct, hashes, pick, summarize
from trainmaster_trainer.data.tables.table import ARROW, Column, ColumnType

ROWS = 3000
DICE = np.random.default_rng(0)
VALUES: dict[str, list[Any]] = {
    "integer": [None, 0, -1, 2**62, 7],
    "number": [None, 0.0, -0.0, 1.5, float("inf")],
    "text": [None, "", "a", "aé", "abcdefgh", "abcdefghi", "abcdefgh\x00", "x" * 99],
    "boolean": [None, True, False],
    "bytes": [None, b"", b"\x00", b"\x00\x00"],
    "time": [None, datetime(1970, 1, 1), datetime(2024, 1, 1) + timedelta(microseconds=1)],
}


def column(kind: str) -> Column:
    values = pa.array(
        [VALUES[kind][index] for index in DICE.integers(0, len(VALUES[kind]), ROWS)], ARROW[ColumnType(kind)]
    )
    chunks = [values.slice(0, 17), values.slice(17, 0), values.slice(17, 1000), values.slice(1017)]
    return Column(kind, ColumnType(kind), pa.chunked_array(chunks))


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "LARGE", 0)
    monkeypatch.setattr(duplicates, "LARGE", 0)


@pytest.mark.parametrize("few_bytes", [0, 10**6])
@pytest.mark.parametrize("kind", ["integer", "number", "text", "boolean", "time"])
def test_count_distinct(monkeypatch: pytest.MonkeyPatch, kind: str, few_bytes: int) -> None:
    monkeypatch.setattr(distinct, "_FEW_BYTES", few_bytes)
    found = column(kind)
    assert count_distinct(found) == len(set(found.values.to_pylist()) - {None})


@pytest.mark.parametrize("kind", VALUES)
def test_hashes_are_equal_for_equal_values_only(kind: str) -> None:
    found = column(kind)
    by_value: dict[Any, set[int]] = {}
    for value, number in zip(found.values.to_pylist(), hashes(found).tolist(), strict=True):
        by_value.setdefault(value, set()).add(number)
    assert {len(numbers) for numbers in by_value.values()} == {1}
    assert len(set.union(*by_value.values())) == len(by_value)


def test_equal_rows_are_found_by_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [column(kind) for kind in VALUES]
    rows = list(zip(*(each.values.to_pylist() for each in columns), strict=True))
    first: dict[Any, int] = {}
    expected = [first.setdefault(row, number) for number, row in enumerate(rows)]
    assert 0 < len(set(expected)) < ROWS
    assert duplicates.row_ids(columns, ROWS).tolist() == expected
    monkeypatch.setattr(duplicates, "row_hashes", lambda _, rows, __: np.zeros(rows, np.uint64))  # all collide
    assert duplicates.row_ids(columns, ROWS).tolist() == expected


@pytest.mark.parametrize("kind", VALUES)
def test_pick_takes_rows_in_any_order(kind: str) -> None:
    found, rows = column(kind), DICE.integers(0, ROWS, 500)
    assert pick(found.values, rows).to_pylist() == [found.values[int(row)].as_py() for row in rows]
    assert len(pick(found.values, rows[:0])) == 0


@pytest.mark.parametrize("few", [1, 4096])
@pytest.mark.parametrize("kind", ["integer", "number", "time"])
def test_summary_says_what_the_values_say(kind: str, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "FEW", few)
    found = column(kind)
    values = found.values if kind != "time" else found.values.cast(pa.int64())
    present = [value for value in values.to_pylist() if value is not None]
    known = summarize(found)
    assert known is not None
    assert (known.nulls, known.distinct) == (ROWS - len(present), len(set(present)))
    assert (known.low, known.high) == (min(present), max(present))
    assert (None if known.few is None else known.few.tolist()) == (sorted(set(present)) if few == 4096 else None)


def test_summary_of_nothing() -> None:
    empty = Column("x", ColumnType.NUMBER, pa.chunked_array([pa.array([None, float("nan")], pa.float64())]))
    known = summarize(empty)
    assert known is not None
    assert (known.nulls, known.distinct, known.quartiles) == (2, 0, None)
    assert summarize(column("text")) is None


def test_columns_are_visited_when_they_have_been_hashed() -> None:
    columns, seen = [column(kind) for kind in VALUES], []
    duplicates.row_ids(columns, ROWS, lambda each: seen.append(each.name))
    assert seen == list(VALUES)
