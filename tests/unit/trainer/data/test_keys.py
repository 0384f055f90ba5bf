"""What a split of a table goes by, from its columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from trainmaster_api.spec.data import Data, Split
from trainmaster_api.spec.table import ColumnSpec
from trainmaster_trainer.data.division import divide
from trainmaster_trainer.data.tables.keys import keys_of
from trainmaster_trainer.data.tables.table import ARROW, Column, ColumnType, Part, Table
from trainmaster_trainer.errors import DataError


def table(kind: ColumnType, values: list[Any]) -> Table:
    column = Column("key", kind, pa.chunked_array([pa.array(values, ARROW[kind])]))
    half = len(values) // 2
    return Table("rows", (column,), (Part("a.csv", half, 2), Part("b.csv", len(values) - half, 2)), {})


def data(by: Any, column: str | None = "key", **more: Any) -> Data:
    return Data(source="rows.csv", split=Split(by=by, column=column, train=0.5, validation=0.25, test=0.25), **more)


def test_groups_of_text_are_kept_together() -> None:
    rows = table(ColumnType.TEXT, [*"abacabdacd"])
    found = divide(data("group").split, keys_of(rows, data("group")))
    letters = [{"abacabdacd"[row] for row in part} for part in found.parts]
    assert sum(len(part) for part in letters) == len(set("abcd"))


def test_the_group_is_the_column_with_that_role() -> None:
    asked = data("group", None, columns={"key": ColumnSpec(role="group")})
    assert keys_of(table(ColumnType.INTEGER, [5, 5, 7, 9]), asked).values.tolist() == [0, 0, 1, 2]  # type: ignore[union-attr]


def test_times_are_split_in_their_order() -> None:
    rows = table(ColumnType.TIME, [np.datetime64(f"2024-05-0{day}", "us") for day in (8, 1, 2, 7, 3, 4, 6, 5)])
    found = divide(data("time").split, keys_of(rows, data("time")))
    assert [sorted(part.tolist()) for part in found.parts] == [[1, 2, 4, 5], [6, 7], [0, 3]]


def test_a_column_says_the_split() -> None:
    rows = table(ColumnType.TEXT, ["Train", "val", "test", "train"])
    found = divide(data("column").split, keys_of(rows, data("column")))
    assert [sorted(part.tolist()) for part in found.parts] == [[0, 3], [1], [2]]
    rows = table(ColumnType.TEXT, ["Train", "val", "hold", "train"])
    with pytest.raises(DataError, match=r"b\.csv: row 1, column key: 'hold'; accepted are"):
        divide(data("column").split, keys_of(rows, data("column")))


@pytest.mark.parametrize("by", ["group", "time", "column"])
def test_an_empty_key_is_refused_with_its_row(by: str) -> None:
    kind, values = (
        (ColumnType.INTEGER, [1, 2, None, 4]) if by == "time" else (ColumnType.TEXT, ["train", "b", None, ""])
    )
    with pytest.raises(DataError, match=rf"b\.csv: row 1, column key: is empty; data\.split\.by: {by} needs a value"):
        keys_of(table(kind, values), data(by))


def test_rows_of_sources_of_their_own_need_no_key() -> None:
    rows = table(ColumnType.INTEGER, [1, 2, 3, 4, None, None])
    found = divide(data("time").split, keys_of(rows, data("time"), test_rows=2))
    assert found.test.tolist() == [4, 5]
    assert found.validation.tolist() == [3]


def test_a_column_that_is_no_time_or_is_not_there_is_refused() -> None:
    with pytest.raises(DataError, match=r"column key is text, and data\.split\.by: time needs times or numbers"):
        keys_of(table(ColumnType.TEXT, ["yesterday", "today"]), data("time"))
    with pytest.raises(DataError, match="has no column 'day'; its columns are key"):
        keys_of(table(ColumnType.TEXT, ["a", "b"]), data("time", "day"))
