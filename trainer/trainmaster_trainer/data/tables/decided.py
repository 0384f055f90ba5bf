"""What becomes of a column, decided over all of its cells; its values are made a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from .table import Column, ColumnType, LeftOut, Part, Table


@dataclass(frozen=True)
class Decided:
    """A column whose type is known and whose values aren't there yet.

    Attributes:
        name: Its name.
        type: What it holds.
        arrow: The Arrow type of its values.
        count: Number of chunks; those of all columns of a table that is read into a cache have the same rows.
        convert: Returns the values of a chunk, by its number.
        notes: Those of the column.
    """

    name: str
    type: ColumnType
    arrow: pa.DataType
    count: int
    convert: Callable[[int], pa.Array]
    notes: tuple[str, ...] = ()

    def column(self) -> Column:
        """Return the column, in memory."""
        chunks = [self.convert(index) for index in range(self.count)]
        return Column(self.name, self.type, pa.chunked_array(chunks, type=self.arrow), self.notes)


@dataclass(frozen=True)
class Draft:
    """A table whose types are known and whose values aren't there yet; the attributes are those of `Table`."""

    shown: str
    columns: tuple[Decided, ...]
    parts: tuple[Part, ...]
    dialect: dict[str, Any]
    left_out: tuple[LeftOut, ...] = ()

    def table(self) -> Table:
        """Return the table, in memory."""
        columns = tuple(each.column() for each in self.columns)
        return Table(self.shown, columns, self.parts, self.dialect, self.left_out)
