"""Which type a column has, and what is said of the cells that don't fit."""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from trainmaster_trainer.data.tables.canonical import canonical
from trainmaster_trainer.data.tables.problems import ReadProblems
from trainmaster_trainer.data.tables.table import Column
from trainmaster_trainer.data.tables.types import typed
from trainmaster_trainer.errors import DataError


def where(row: int) -> str:
    return f"row {row + 1}"


def text(*cells: str | None, decimal: str = ".", problems: ReadProblems | None = None) -> Column:
    values = pa.chunked_array([pa.array(cells[:2], pa.large_string()), pa.array(cells[2:], pa.large_string())])
    own = problems or ReadProblems("t.csv")
    found = typed("c", values, decimal, where, own)
    if problems is None:
        own.check()
    return found


def arrow(*pieces: pa.Array) -> Column:
    problems = ReadProblems("t")
    named = [(f"{index}.parquet", pa.chunked_array([piece])) for index, piece in enumerate(pieces)]
    found = canonical("c", named, where, problems, "t")
    problems.check()
    return found


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["true", "FALSE", None, "True"], "boolean", [True, False, None, True]),
        (["1", "0", None], "integer", [1, 0, None]),
        (["-0", "9223372036854775807", "-9223372036854775808"], "integer", [0, 2**63 - 1, -(2**63)]),
        (["1", "1.0", "2."], "number", [1.0, 1.0, 2.0]),
        ([None, None, "1e-3", "-.5E+2"], "number", [None, None, 0.001, -50.0]),
        (["inf", "-Infinity", "1"], "number", [math.inf, -math.inf, 1.0]),
        (["100000000000000000000", "1"], "number", [1e20, 1.0]),
        (["0.1", "179769313486231570000e288"], "number", [0.1, 1.7976931348623157e308]),
        ([None, None, None], "empty", [None, None, None]),
        (["true", "1"], "text", ["true", "1"]),
        (["T", "F"], "text", ["T", "F"]),
        (["007", "012"], "text", ["007", "012"]),
        (["+1", "+2"], "text", ["+1", "+2"]),
        (["0x10", "0x11"], "text", ["0x10", "0x11"]),
        (["1_000", "1,000", "1 000"], "text", ["1_000", "1,000", "1 000"]),
        (["٣", "٤"], "text", ["٣", "٤"]),
        ([" 1", " 2"], "text", [" 1", " 2"]),
        (["", ""], "text", ["", ""]),
        (["1e5x", "-", "."], "text", ["1e5x", "-", "."]),
        (["nan", "nan"], "text", ["nan", "nan"]),
        (["31.12.2024", "12/31/2024", "20241231T00"], "text", ["31.12.2024", "12/31/2024", "20241231T00"]),
    ],
)
def test_text_column(cells: list[str | None], kind: str, values: list[Any]) -> None:
    found = text(*cells)
    assert (found.type.value, found.values.to_pylist()) == (kind, values)
    assert found.notes == ()


def test_decimal_comma() -> None:
    found = text("1,5", "-,25", "1e3", "7", decimal=",")
    assert (found.type.value, found.values.to_pylist()) == ("number", [1.5, -0.25, 1000.0, 7.0])
    assert text("1.5", "2.5", decimal=",").type.value == "text"


@pytest.mark.parametrize(
    ("cell", "moment"),
    [
        ("2024-02-29", datetime(2024, 2, 29)),
        ("0001-01-01", datetime(1, 1, 1)),
        ("9999-12-31 23:59:59.999999", datetime(9999, 12, 31, 23, 59, 59, 999999)),
        ("1969-12-31T23:59:59.5", datetime(1969, 12, 31, 23, 59, 59, 500000)),
        ("2024-01-02 03:04", datetime(2024, 1, 2, 3, 4)),
    ],
)
def test_time_without_zone(cell: str, moment: datetime) -> None:
    found = text(cell, None, cell)
    assert (found.type.value, found.values.to_pylist()) == ("time", [moment, None, moment])


def test_times_with_zones_are_utc() -> None:
    cells = ["2024-01-02T03:04:05Z", "2024-01-02 03:04:05+05:30", "2024-01-02T03:04:05 -0330", "2024-01-02T03:04+01"]
    found = text(*cells)
    assert found.values.to_pylist() == [
        datetime(2024, 1, 2, 3, 4, 5),
        datetime(2024, 1, 1, 21, 34, 5),
        datetime(2024, 1, 2, 6, 34, 5),
        datetime(2024, 1, 2, 2, 4),
    ]


def test_times_with_and_without_zone_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"with a zone \(row 3 '2024-01-01T00:00Z'\) and without \(row 2 '2024-01-01'\)"
    ):
        text(None, "2024-01-01", "2024-01-01T00:00Z")


@pytest.mark.parametrize(
    "cell",
    [
        "2023-02-29",
        "2024-13-01",
        "2024-00-10",
        "2024-04-31",
        "2024-01-01T24:00",
        "2024-01-01T00:00:60",
        "2024-01",
        "2024-01-01T00:00+24:00",
        "0000-01-01",
    ],
)
def test_time_that_does_not_exist_leaves_text_and_is_named(cell: str) -> None:
    found = text("2024-01-01", "2024-01-02", None, cell)
    assert found.type.value == "text"
    assert found.notes == (f"text, though 2 of 3 cells are times: not row 4 '{cell}'",)


def test_digits_after_microseconds_are_cut_and_said() -> None:
    found = text("2024-01-01T00:00:00.123456789", "2024-01-01T00:00:00.5")
    assert found.values[0].as_py() == datetime(2024, 1, 1, 0, 0, 0, 123456)
    assert found.notes == ("1 times cut to microseconds",)


def test_mostly_numbers_is_text_and_said() -> None:
    found = text("1", None, "n.a.", "2.5", "3", "-", "4", "?", "x", "5", "6")
    assert found.type.value == "text"
    assert found.notes == ("text, though 6 of 10 cells are numbers: not row 3 'n.a.', row 6 '-', row 8 '?' and 1 more",)
    assert text("1", "x").notes == ()  # half


def test_integers_beyond_float64_stay_text() -> None:
    found = text("9223372036854775808", "9223372036854775809", "1")
    assert (found.type.value, found.values[1].as_py()) == ("text", "9223372036854775809")
    assert found.notes == ("text, because 1 integers are beyond 64 bits and would be rounded",)
    assert text("1" + "0" * 22, "7").type.value == "number"
    assert text("1" * 80, "7").type.value == "text"


def test_integer_among_fractions_that_is_rounded_is_said() -> None:
    found = text("9007199254740993", "0.5", "9007199254740992")
    assert found.type.value == "number"
    assert found.notes == ("1 integers as the nearest number",)


def test_number_beyond_float64_is_refused_by_row() -> None:
    with pytest.raises(
        DataError, match=r"row 2, column c: '1e999' is beyond what a 64-bit float holds; row 4, column c: '-1e400'"
    ):
        text("1", "1e999", None, "-1e400", "inf")


def _zoned(unit: str) -> pa.Array:
    return pa.array([0, None, -1], pa.timestamp(unit, "Europe/Berlin"))


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (pa.array([1, None], pa.int8()), "integer", [1, None]),
        (pa.array([1, 2**32 - 1], pa.uint32()), "integer", [1, 2**32 - 1]),
        (pa.array([1, 2**63 - 1], pa.uint64()), "integer", [1, 2**63 - 1]),
        (pa.array([1, 2**63], pa.uint64()), "number", [1.0, 2.0**63]),
        (
            pa.array([0.1, math.nan, math.inf, None], pa.float32()),
            "number",
            [float(np.float32(0.1)), None, math.inf, None],
        ),
        (pa.array([np.float16(0.5), None], pa.float16()), "number", [0.5, None]),
        (pa.array([math.nan, math.nan]), "empty", [None, None]),
        (pa.array([None, None], pa.string()), "empty", [None, None]),
        (pa.array([Decimal("1.10"), None], pa.decimal128(10, 2)), "number", [1.1, None]),
        (pa.array(["b", None, "a"]).dictionary_encode(), "text", ["b", None, "a"]),
        (pa.array([1, None, 1]).dictionary_encode(), "integer", [1, None, 1]),
        (pa.array(["007"]), "text", ["007"]),
        (pa.array([True, None]), "boolean", [True, None]),
        (pa.array([b"x", None], pa.binary()), "bytes", [b"x", None]),
        (pa.array([b"xy"], pa.binary(2)), "bytes", [b"xy"]),
        (pa.array([date(1960, 2, 29), None], pa.date32()), "time", [datetime(1960, 2, 29), None]),
        (pa.array([date(2024, 1, 1)], pa.date64()), "time", [datetime(2024, 1, 1)]),
        (_zoned("s"), "time", [datetime(1970, 1, 1), None, datetime(1969, 12, 31, 23, 59, 59)]),
        (_zoned("ms"), "time", [datetime(1970, 1, 1), None, datetime(1969, 12, 31, 23, 59, 59, 999000)]),
        (pa.array([[1], None]), "other", [[1], None]),
        (pa.array([{"a": 1}]), "other", [{"a": 1}]),
        (pa.array([1], pa.duration("s")), "other", [timedelta(seconds=1)]),
    ],
)
def test_arrow_column(values: pa.Array, kind: str, expected: list[Any]) -> None:
    found = arrow(values)
    assert (found.type.value, found.values.to_pylist()) == (kind, expected)
    assert found.notes == ()
    if kind == "other":
        assert found.values.type == values.type


@pytest.mark.parametrize(
    ("values", "kind", "note"),
    [
        (pa.array([2**63 + 1], pa.uint64()), "text", "text, because integers are beyond 64 bits and would be rounded"),
        (
            pa.array([Decimal(2**60 + 1), Decimal(1)], pa.decimal128(38, 0)),
            "number",
            "1 decimals as the nearest number",
        ),
        (
            pa.array([Decimal("0.12345678901234567891")], pa.decimal128(38, 20)),
            "number",
            "1 decimals as the nearest number",
        ),
        (pa.array([-1, None, 2000], pa.timestamp("ns")), "time", "1 times cut to microseconds"),
    ],
)
def test_arrow_values_that_do_not_fit_are_said(values: pa.Array, kind: str, note: str) -> None:
    found = arrow(values)
    assert (found.type.value, found.notes) == (kind, (note,))
    if kind == "time":
        assert found.values.to_pylist() == [
            datetime(1969, 12, 31, 23, 59, 59, 999999),
            None,
            datetime(1970, 1, 1, 0, 0, 0, 2),
        ]


def test_time_beyond_microseconds_is_refused_by_row() -> None:
    with pytest.raises(DataError, match="row 2, column c: 9223372036854775807 is beyond the range of times"):
        arrow(pa.array([0, 2**63 - 1], pa.timestamp("s")))


@pytest.mark.parametrize(
    ("pieces", "kind", "expected"),
    [
        ([pa.array([1]), pa.array([1.5])], "number", [1.0, 1.5]),
        ([pa.array([1], pa.int8()), pa.array([2**62])], "integer", [1, 2**62]),
        ([pa.array([1]), pa.array([2**63], pa.uint64())], "number", [1.0, 2.0**63]),
        ([pa.array([1]), pa.array([Decimal("0.5")])], "number", [1.0, 0.5]),
        ([pa.array([0.25]), pa.array([Decimal("0.5")])], "number", [0.25, 0.5]),
        ([pa.array([None], pa.null()), pa.array(["a"])], "text", [None, "a"]),
        ([pa.array([], pa.int64()), pa.array(["a"]), pa.array([None], pa.float64())], "text", ["a", None]),
        ([pa.array(["a"]), pa.array(["b"]).dictionary_encode()], "text", ["a", "b"]),
        (
            [pa.array([date(2024, 1, 1)]), pa.array([datetime(2024, 1, 2)])],
            "time",
            [datetime(2024, 1, 1), datetime(2024, 1, 2)],
        ),
        (
            [pa.array([0], pa.timestamp("ns", "UTC")), pa.array([0], pa.timestamp("s", "Asia/Tokyo"))],
            "time",
            [datetime(1970, 1, 1)] * 2,
        ),
    ],
)
def test_files_whose_types_can_be_one(pieces: list[pa.Array], kind: str, expected: list[Any]) -> None:
    found = arrow(*pieces)
    assert (found.type.value, found.values.to_pylist(), found.notes) == (kind, expected, ())


def test_integers_of_one_file_rounded_by_another_are_said() -> None:
    assert arrow(pa.array([2**53 + 1, 1]), pa.array([0.5])).notes == ("1 integers as the nearest number",)


@pytest.mark.parametrize(
    "pieces",
    [
        [pa.array([1]), pa.array(["1"])],
        [pa.array([True]), pa.array([1])],
        [pa.array([0], pa.timestamp("us")), pa.array([0], pa.timestamp("us", "UTC"))],
        [pa.array([date(2024, 1, 1)]), pa.array([1])],
        [pa.array([[1]]), pa.array([["a"]])],
    ],
)
def test_files_whose_types_differ_are_refused(pieces: list[pa.Array]) -> None:
    with pytest.raises(DataError, match=r"^t: column c has different types: 0\.parquet has .*, 1\.parquet has "):
        arrow(*pieces)
