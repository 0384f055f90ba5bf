"""What a split of a table goes by: its column as numbers, without nulls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from trainmaster_api.spec.data import Data

from trainmaster_trainer.data.division import Keys
from trainmaster_trainer.data.duplicates import codes_of
from trainmaster_trainer.data.sentences import MOST_NAMED, first_of
from trainmaster_trainer.errors import DataError

from .table import Column, ColumnType, Table


def split_column(data: Data) -> str | None:
    """Return the name of the column that the split goes by; None if it goes by none."""
    if data.split.by not in ("group", "time", "column"):
        return None
    if data.split.column is None and data.split.by == "group":
        return next((name for name, column in data.columns.items() if column.role == "group"), None)
    return data.split.column


def keys_of(
    table: Table,
    data: Data,
    *,
    classes: npt.NDArray[np.int64] | None = None,
    class_names: tuple[str, ...] = (),
    validation_rows: int = 0,
    test_rows: int = 0,
) -> Keys:
    """Return what `divide` needs to know of a table.

    Args:
        table: The rows of `source`, then those of `validationSource`, then those of `testSource`.
        data: `spec.training.data`.
        classes: Class of each row; None: a regression.
        class_names: Names of the classes.
        validation_rows: How many rows come from `validationSource`.
        test_rows: How many rows come from `testSource`.

    Raises:
        DataError: No such column, a null in it, or a column that isn't a time, with `by: time`.
    """
    found = Keys(
        len(table),
        classes,
        class_names,
        where=table.where,
        validation_rows=validation_rows,
        test_rows=test_rows,
    )
    name = split_column(data)
    if name is None:
        return found
    if name not in table.names:
        known = ", ".join(table.names[:40])
        raise DataError(f"data.split.column: {table.shown} has no column {name!r}; its columns are {known}")
    column = table.column(name)
    own = len(table) - validation_rows - test_rows  # the other rows are in their split already
    _require_values(table, column, own, str(data.split.by))
    if data.split.by == "time":
        return replace(found, values=_times(column))
    words = pc.unique(column.values).to_pylist()
    return replace(found, values=codes_of(column.values), words=tuple(str(word) for word in words))


def _require_values(table: Table, column: Column, rows: int, by: str) -> None:
    values = column.values.slice(0, rows)
    empty = np.flatnonzero(pc.is_null(values).to_numpy())
    if len(empty):
        some = [f"{table.where(row)}, column {column.name}: is empty" for row in empty[:MOST_NAMED].tolist()]
        raise DataError(
            f"{table.shown}: {first_of(some, len(empty))}; data.split.by: {by} needs a value in every row: fill "
            "them in or remove the rows"
        )


def _times(column: Column) -> npt.NDArray[Any]:
    if column.type is ColumnType.TIME:
        return np.asarray(column.values.to_numpy(), "datetime64[us]")
    if column.type in (ColumnType.INTEGER, ColumnType.NUMBER):
        return np.asarray(pc.fill_null(column.values, pa.scalar(0, column.values.type)).to_numpy())
    raise DataError(
        f"data.split.column: column {column.name} is {column.type.value}, and data.split.by: time needs times or "
        "numbers; write times as 2024-05-31 or 2024-05-31T12:00:00"
    )
