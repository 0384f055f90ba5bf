"""Random tables as text and as Parquet: the roles and numbers that an independent reader computes, or its refusal.

The reader is Python's csv module, the rules of docs/data.md in a few lines of Python, and exact fractions.
"""

from __future__ import annotations

import csv
import io
import math
import re
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.errors import DataError

from tests.unit.trainer.harness import small_job

NULLS = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "#N/A")
FLOAT32_MAX = float(np.finfo(np.float32).max)
FARTHEST = 1e12
WORDS = st.text('ab ,;|\t\n"=.#\xe9\u20ac', max_size=5)
TARGET = "the target"


@dataclass(frozen=True)
class Drawn:
    """A column: its cells as Parquet has them, and how a cell is written as text."""

    cells: list[Any]
    type: pa.DataType
    write: Callable[[Any], str] = str


def of(cells: st.SearchStrategy[Any], of_type: pa.DataType, write: Callable[[Any], str] = str) -> Any:
    return cells, of_type, write


INTEGERS = st.integers(-(2**62), 2**62) | st.integers(-9, 9)
FLOATS = st.floats(-1e30, 1e30) | st.floats(-9, 9, width=16) | st.integers(-9, 9).map(float)
START = datetime(1999, 12, 31)
# even, so that the median of two is a time
TIMES = st.integers(0, 10**15).map(lambda number: START + timedelta(microseconds=2 * number))
KINDS: dict[str, Any] = {
    "integer": of(INTEGERS, pa.int64()),
    "byte": of(st.integers(0, 255), pa.uint8()),
    "number": of(FLOATS, pa.float64(), repr),
    "short": of(st.floats(-(2.0**99), 2.0**99, width=32), pa.float32(), lambda cell: repr(float(cell))),
    "decimal": of(st.integers(-(10**6), 10**6).map(lambda cents: Decimal(cents) / 100), pa.decimal128(12, 2)),
    "large": of(st.sampled_from([0.5, 1.5, 2.5, 1e39, -1e300, math.inf, -math.inf]), pa.float64(), repr),
    "boolean": of(st.booleans(), pa.bool_()),
    "few": of(st.sampled_from(["x#", 'q"#', "a,;|\t#", "\n#", "\xe9 #", " #"]), pa.string()),
    "many": of(WORDS.map(lambda word: f"{word}#"), pa.string()),
    "almost": of(st.sampled_from(["1", "2.5", "-3", "4e2", "5", "6", "seven#"]), pa.string()),
    "time": of(TIMES, pa.timestamp("us"), lambda at: at.isoformat()),
    "date": of(TIMES.map(datetime.date), pa.date32(), lambda day: day.isoformat()),
    "empty": of(st.none(), pa.int64()),
    "one": of(st.just(7), pa.int64()),
}


@dataclass(frozen=True)
class Case:
    """A table, and how it is written as text."""

    names: list[str]
    columns: list[Drawn]
    missing: str
    null: str
    delimiter: str
    decimal: str
    end: str
    encoding: str
    quoted: bool

    def text(self) -> str:
        special = {self.delimiter, '"', "\n", "\r", ",", ";", "|", "\t"}

        def field(text: str, quoted: bool) -> str:
            needs = quoted or text != text.strip() or special & set(text)
            return '"' + text.replace('"', '""') + '"' if needs else text

        def cell(value: Any, column: Drawn) -> str:
            if value is None:
                return self.null
            text = column.write(value)
            if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
                text = text.replace(".", self.decimal)
            return field(text, self.quoted)

        lines = [self.delimiter.join(field(name, False) for name in self.names)]
        for row in zip(*(column.cells for column in self.columns), strict=True):
            lines.append(self.delimiter.join(map(cell, row, self.columns)))
        return self.end.join(lines) + self.end

    def data(self, source: str) -> dict[str, Any]:
        options = {"decimal": self.decimal}
        if self.encoding == "cp1252":
            options["encoding"] = "cp1252"
        return {"source": source, "target": TARGET, "batchSize": 4, "missing": self.missing, "csv": options}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rows = draw(st.integers(22, 40))
    usual = st.sampled_from(sorted(set(KINDS) - {"large", "almost"}))
    kinds = draw(st.lists(usual | usual | usual | st.sampled_from(sorted(KINDS)), min_size=1, max_size=4))
    columns = []
    for kind in kinds:
        cells, of_type, write = KINDS[kind]
        with_nulls = cells | st.none() if draw(st.integers(0, 2)) == 0 else cells
        drawn = draw(st.lists(with_nulls, min_size=rows, max_size=rows))
        if kind == "almost":  # text that is a number in every cell is a number in CSV alone, as documented
            drawn[0] = "seven#"
        columns.append(Drawn(drawn, of_type, write))
    # neither a copy of a column nor along one of them
    target = np.random.default_rng(draw(st.integers(0, 99))).permutation(np.arange(rows) % 2)
    names = [*(draw(WORDS.map(str.strip)) for _ in kinds), TARGET]
    if draw(st.integers(0, 4)):  # else a name may be empty, or there twice
        names = [f"{name}{number}" for number, name in enumerate(names[:-1])] + [TARGET]
    delimiter = draw(st.sampled_from(",;|\t"))
    return Case(
        names=names,
        columns=[*columns, Drawn([f"c{y}" for y in target], pa.string())],
        missing=draw(st.sampled_from(["impute", "impute", "impute", "error"])),
        null=draw(st.sampled_from(NULLS)),
        delimiter=delimiter,
        decimal=draw(st.sampled_from(".,")) if delimiter != "," else ".",
        end=draw(st.sampled_from(["\n", "\r\n"])),
        encoding=draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"])),
        quoted=draw(st.booleans()),
    )


# --- the independent reader ------------------------------------------------------------------------------------------


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """With the rows that are named, from 1; none: it isn't about cells."""


def read(case: Case) -> dict[str, list[Any]]:
    """Return each column of the text as typed values."""
    found = list(csv.reader(io.StringIO(case.text(), newline=""), delimiter=case.delimiter))
    names = [name.strip() for name in found[0]]
    if len(set(names)) < len(names) or "" in names:
        raise Refused([])
    columns = zip(*found[1:], strict=True)
    return {name: typed(column, case.decimal) for name, column in zip(names, columns, strict=True)}


def typed(column: tuple[str, ...], decimal: str) -> list[Any]:
    cells = [None if cell in NULLS else cell for cell in column]
    present = [cell for cell in cells if cell is not None]
    number = rf"-?(0|[1-9]\d*)({re.escape(decimal)}\d*)?(e[+-]?\d+)?|-?inf"
    rules: list[tuple[str, Callable[[str], Any]]] = [
        ("(?i)true|false", lambda cell: cell.lower() == "true"),
        (r"-?(0|[1-9]\d*)", int),
        (number, lambda cell: float(cell.replace(decimal, "."))),
        (r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d+)?)?", datetime.fromisoformat),
    ]
    for pattern, value in rules:
        if present and all(re.fullmatch(pattern, cell) for cell in present):
            return [None if cell is None else value(cell) for cell in cells]
    return cells


def role_of(values: list[Any]) -> str:
    """Return the role by the table of docs/data.md."""
    present = [value for value in values if value is not None]
    if len(set(present)) <= 1:
        return "ignore"
    if not isinstance(present[0], str):
        return {bool: "boolean", int: "numeric", float: "numeric", datetime: "datetime"}[type(present[0])]
    numbers = sum(is_number(cell) for cell in present)
    if len(present) > numbers > len(present) / 2:
        return "numeric"
    few = len(set(present)) <= max(20, len(values) // 10) and 2 * len(set(present)) <= len(present)
    return "categorical" if few else "ignore"


def is_number(cell: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?(e\d+)?", cell) is not None


def wrong_rows(values: list[Any], role: str, missing: str) -> list[int]:
    """Return the rows whose cells can't be used."""

    def is_wrong(value: Any) -> bool:
        if value is None:
            return missing == "error"
        if role != "numeric":
            return False
        return not (is_number(value) if isinstance(value, str) else abs(value) <= FLOAT32_MAX)

    return [row for row, value in enumerate(values, start=1) if role != "ignore" and is_wrong(value)]


def encoded(name: str, values: list[Any], role: str, train: list[int]) -> dict[str, list[float]]:
    """Return features of a column by name, None where a test has nothing to compare with."""
    of_train = [values[row] for row in train if values[row] is not None]
    if role == "categorical":
        seen = sorted(set(of_train))
        found = {f"{name}={word}": [float(value == word) for value in values] for word in seen}
        own = any(values[row] is None for row in train)
        other = [float(value not in seen and not (own and value is None)) for value in values]
        found[f"{name} is another"] = other
        if own:
            found[f"{name} is missing"] = [float(value is None) for value in values]
        return found
    if role == "boolean":
        fill = 2 * sum(of_train) > len(of_train)
        return {name: [float(fill if value is None else value) for value in values]}
    if role == "datetime":
        name, values = f"{name} days", [value and days(value) for value in values]
        of_train = [value for value in (values[row] for row in train) if value is not None]
    exact = [None if value is None else Fraction(value) for value in values]
    known = [Fraction(value) for value in of_train]
    mean = sum(known) / len(known)
    variance = sum((value - mean) ** 2 for value in known) / len(known)
    deviation = math.sqrt(variance) or 1.0
    fill = statistics.median(known)
    return {name: [float((fill if value is None else value) - mean) / deviation for value in exact]}


def days(moment: datetime) -> Fraction:
    return Fraction((moment - START) // timedelta(microseconds=1), 86_400_000_000)


# --- the product against it ------------------------------------------------------------------------------------------


def load(data: dict[str, Any], folder: Path) -> Prepared | DataError:
    asked = {"spec.training.data": data, "spec.training.task": {"name": "classification"}}
    try:
        return load_data(small_job(asked), folder, {})
    except DataError as error:
        return error


def expected(case: Case, train: list[int]) -> tuple[dict[str, str], dict[str, list[float]]]:
    """Return roles and features; raises Refused with the rows."""
    columns = read(case)
    roles = {name: "target" if name == TARGET else role_of(values) for name, values in columns.items()}
    if not set(roles.values()) - {"ignore", "target"}:
        raise Refused([])
    wrong = [
        (row, order)
        for order, (name, values) in enumerate(columns.items())
        for row in wrong_rows(values, roles[name], case.missing)
    ]
    if wrong:
        raise Refused([row for row, _ in sorted(wrong)][:10])
    features: dict[str, list[float]] = {}
    far = set()  # two columns of one row are two problems
    for order, (name, values) in enumerate(columns.items()):
        if roles[name] not in ("ignore", "target"):
            if not any(values[row] is not None for row in train):
                raise Refused([])  # nothing of the train split to measure
            found = encoded(name, values, roles[name], train)
            far |= {
                (row + 1, order) for each in found.values() for row, value in enumerate(each) if abs(value) > FARTHEST
            }
            features |= found
    if far:
        raise Refused([row for row, _ in sorted(far)][:10])
    return roles, features


def outcome(case: Case, train: list[int]) -> tuple[dict[str, str], dict[str, list[float]]] | Refused:
    try:
        return expected(case, train)
    except Refused as refused:
        return refused


@settings(
    max_examples=150, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate), report_multiple_bugs=False
)
@given(cases())
def test_random_table_is_what_an_independent_reader_computes(case: Case) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "t.csv").write_bytes(case.text().encode(case.encoding))
        arrays = [pa.array(column.cells, column.type) for column in case.columns]
        pq.write_table(pa.table(arrays, names=case.names), folder / "t.parquet")
        results = [load(case.data(source), folder) for source in ("t.csv", "t.parquet")]
        # the split goes by the classes alone, so it is that of a table of nothing else
        pq.write_table(pa.table({"a": range(len(arrays[0])), TARGET: arrays[-1]}), folder / "plain.parquet")
        plain = load({"source": "plain.parquet", "target": TARGET, "batchSize": 4}, folder)
        assert isinstance(plain, Prepared)
        train = plain.train.tolist()
    wanted = outcome(case, train)
    for result in results:
        if isinstance(wanted, Refused):
            assert isinstance(result, DataError), f"expected a refusal of rows {wanted.args}"
            assert [int(row) for row in re.findall(r"row (\d+), column ", result.message)] == wanted.args[0]
            continue
        roles, features = wanted
        assert isinstance(result, Prepared), result
        table = result.description()["table"]["columns"]
        assert {column["name"]: column["role"] for column in table} == roles
        x, y = result.rows.batch(np.arange(len(result.rows)))
        assert [result.rows.labels[code] for code in y.tolist()] == case.columns[-1].cells
        there = dict(zip(result.rows.features, x.numpy().T, strict=True))
        parts = ("time of day", "weekday", "day of year")  # of times; compared with by the tests of encoding
        assert [name for name in there if name in features or not any(part in name for part in parts)] == list(features)
        for name, values in features.items():
            np.testing.assert_allclose(there[name], values, rtol=1e-5, atol=1e-5, err_msg=name)
