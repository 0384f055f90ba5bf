"""Roles: inferred by the rules of docs/data.md, declared, refused."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.task import Task
from trainmaster_trainer.data.tables.roles import Planned, plan
from trainmaster_trainer.data.tables.table import ARROW, Column, ColumnType, Part, Table
from trainmaster_trainer.errors import DataError

DAYS = [dt.datetime(2024, 1, 1) + dt.timedelta(days=i) for i in range(60)]
COLUMNS: dict[str, tuple[ColumnType, list[Any]]] = {
    "n": (ColumnType.NUMBER, [i / 7 for i in range(60)]),
    "i": (ColumnType.INTEGER, [i * i for i in range(60)]),
    "b": (ColumnType.BOOLEAN, [i % 2 == 0 for i in range(60)]),
    "c": (ColumnType.TEXT, ["abc"[i % 3] for i in range(60)]),
    "t": (ColumnType.TIME, DAYS),
    "note": (ColumnType.TEXT, [f"text {i}" for i in range(60)]),
    "one": (ColumnType.INTEGER, [3] * 60),
    "none": (ColumnType.EMPTY, [None] * 60),
    "raw": (ColumnType.BYTES, [b"x"] * 60),
    "y": (ColumnType.TEXT, ["pq"[i % 2] for i in range(60)]),
}


def make_table(**columns: tuple[ColumnType, list[Any]]) -> Table:
    made = tuple(
        Column(name, kind, pa.chunked_array([pa.array(values, ARROW[kind])]))
        for name, (kind, values) in columns.items()
    )
    return Table("x.csv", made, (Part("x.csv", len(made[0].values)),), {})


def planned(table: Table, task: str = "classification", **data: Any) -> dict[str, Planned]:
    asked = Data.model_validate({"source": "x.csv", "target": "y"} | data)
    return {each.column.name: each for each in plan(table, asked, Task.model_validate({"name": task}))}


def said(table: Table, task: str = "classification", **data: Any) -> str:
    with pytest.raises(DataError) as caught:
        planned(table, task, **data)
    return str(caught.value)


def test_roles_follow_types_and_distinct_values() -> None:
    found = planned(make_table(**COLUMNS))
    assert {name: each.role for name, each in found.items()} == {
        "n": "numeric", "i": "numeric", "b": "boolean", "c": "categorical", "t": "datetime", "note": "ignore",
        "one": "ignore", "none": "ignore", "raw": "ignore", "y": "target",
    }  # fmt: skip
    assert "60 distinct values in 60 rows" in found["note"].why
    assert found["one"].why == "has one value only, 3"


@pytest.mark.parametrize("values", [[0.0, -0.0] * 30, [1.5, float("nan")] * 30, [2.0, None] * 30])
def test_one_number_in_several_spellings_is_one_value(values: list[Any]) -> None:
    found = planned(make_table(**COLUMNS | {"n": (ColumnType.NUMBER, values)}))
    assert (found["n"].role, found["n"].distinct) == ("ignore", 1)


def test_text_of_numbers_says_how_to_use_it() -> None:
    found = planned(make_table(**COLUMNS | {"note": (ColumnType.TEXT, [f"{i:04d}" for i in range(60)])}))
    assert found["note"].role == "ignore"
    assert "each a number in quotes or with leading zeros" in found["note"].why
    assert "declare numeric or categorical" in found["note"].why


def test_classes_are_no_measured_numbers() -> None:
    found = said(make_table(b=COLUMNS["b"], y=COLUMNS["n"]))
    assert found.startswith("data.target 'y' has numbers with fractions (row 2: 0.14285714285714285, row 3: ")
    few = (ColumnType.NUMBER, [0.5 if i == 7 else float(i % 2) for i in range(60)])
    assert said(make_table(b=COLUMNS["b"], y=few)).startswith("x.csv: row 8, column y: 0.5 is not a whole number")


def test_features_only_these_and_in_their_order() -> None:
    found = planned(make_table(**COLUMNS), features=["c", "n"])
    assert [name for name, each in found.items() if each.is_feature] == ["c", "n"]
    assert found["i"].why == "not in data.features"


def test_mistakes_are_said_at_once() -> None:
    message = said(
        make_table(**COLUMNS),
        features=["ii", "note", "y", "raw"],
        columns={"t": {"role": "numeric"}, "c": {"role": "datetime"}},
    )
    assert "no column 'ii' (did you mean 'i'?)" in message
    assert "contains the target 'y'" in message
    assert "'note' can't be a feature" in message
    assert "'raw' can't be a feature: holds bytes" in message


def test_declared_role_that_the_type_cannot_have_shows_rows() -> None:
    message = said(make_table(**COLUMNS), columns={"c": {"role": "datetime"}})
    assert (
        "data.columns.c.role: 'c' is of type text (row 1: 'a', row 2: 'b', row 3: 'c') and can't be datetime" in message
    )


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (ColumnType.NUMBER, 1.7976931348623157e308, "row 18, column a: 1.7976931348623157e+308 is beyond float32"),
        (ColumnType.NUMBER, float("-inf"), "row 18, column a: -inf is not a finite number"),
        (ColumnType.NUMBER, -3.5e38, "row 18, column a: -3.5e+38 is beyond float32"),
        (ColumnType.TEXT, "abc", "row 18, column a: 'abc' is not a finite number"),
        (ColumnType.NUMBER, None, "row 18, column a: is empty"),
        (ColumnType.NUMBER, float("nan"), "row 18, column a: is empty"),
    ],
)
def test_cell_that_cannot_be_used(kind: ColumnType, values: Any, expected: str) -> None:
    cells: list[Any] = [i / 4 for i in range(60)] if kind is ColumnType.NUMBER else [str(i) for i in range(60)]
    cells[17] = values
    assert expected in said(make_table(a=(kind, cells), y=COLUMNS["y"]))


def test_first_ten_cells_over_all_columns() -> None:
    a, b = ([None if row % 7 == shift else row / 3 for row in range(60)] for shift in (0, 1))
    message = said(make_table(a=(ColumnType.NUMBER, a), b=(ColumnType.NUMBER, b), y=COLUMNS["y"]))
    assert message.count("is empty") == 10
    assert message.index("row 1, column a") < message.index("row 2, column b") < message.index("row 8, column a")
    assert f"and {sum(v is None for v in a + b) - 10} more" in message


def test_target_missing_is_always_an_error() -> None:
    y = ["p", None, *["q"] * 58]
    assert "row 2, column y: the class is empty" in said(
        make_table(n=COLUMNS["n"], y=(ColumnType.TEXT, y)), missing="drop"
    )


def test_regression_refuses_text_and_booleans() -> None:
    found = said(make_table(n=COLUMNS["n"], y=COLUMNS["y"]), "regression")
    assert found.startswith(
        "data.target 'y' is text (row 1: 'p', row 2: 'q', row 3: 'p'), and a regression takes numbers"
    )
    words = (ColumnType.TEXT, ["p" if i == 7 else f"{i}" for i in range(60)])
    assert said(make_table(n=COLUMNS["n"], y=words), "regression").startswith(
        "x.csv: row 8, column y: 'p' is not a finite number. A regression"
    )
    assert "set task.name to classification" in said(make_table(n=COLUMNS["n"], y=COLUMNS["b"]), "regression")
