"""A table as it was read: whole columns of a few types, where each row came from, and how the files were read.

Reading (`read`) decides types, and nothing after it looks at text again; roles decide what becomes of a column.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import pyarrow as pa

from .ahead import will_need


class ColumnType(StrEnum):
    """What a column holds, decided over all of its values, and the one Arrow type that carries it."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMBER = "number"
    TIME = "time"
    TEXT = "text"
    BYTES = "bytes"
    EMPTY = "empty"
    """Nulls only."""
    OTHER = "other"
    """Lists, structs, durations and whatever else no role takes; its Arrow type is that of the file."""


ARROW: dict[ColumnType, pa.DataType] = {
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.INTEGER: pa.int64(),
    ColumnType.NUMBER: pa.float64(),
    ColumnType.TIME: pa.timestamp("us"),  # of a zone: converted to UTC; dates: midnight
    ColumnType.TEXT: pa.large_string(),
    ColumnType.BYTES: pa.large_binary(),
    ColumnType.EMPTY: pa.null(),
}


PIECE = 1 << 17
"""Most rows that are looked at together where a column may be larger than memory."""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: Its name, unique in the table and never empty.
        type: What it holds.
        values: Its values, of the Arrow type of `type`; null where the file has a null or a word for it.
        notes: What a reader of the report should know: `1,204 decimals as the nearest number`.
    """

    name: str
    type: ColumnType
    values: pa.ChunkedArray
    notes: tuple[str, ...] = ()

    def pieces(self) -> Iterator[tuple[int, Column]]:
        """Yield the column a piece at a time, each with the number of its first row."""
        start = 0
        will_need(self.values)
        for chunk in self.values.iterchunks():
            for at in range(0, len(chunk), PIECE):
                part = chunk.slice(at, PIECE)
                yield start, replace(self, values=pa.chunked_array([part]))
                start += len(part)


@dataclass(frozen=True)
class Part:
    """A file of a table.

    Attributes:
        name: Its path below the source.
        rows: Number of rows.
        first_line: Line of the first row in a text file, from 1; 0 where the format has no lines.
    """

    name: str
    rows: int
    first_line: int = 0


@dataclass(frozen=True)
class LeftOut:
    """Something of the source that no column holds: a nameless index, an empty line, a file that isn't a part."""

    what: str
    why: str


@dataclass(frozen=True)
class Table:
    """A source's rows.

    Attributes:
        shown: The address as the user wrote it.
        columns: In the order of the file; partitions last.
        parts: The files, in the order of their names.
        dialect: How text was read, for the report and `data.json`; empty for Parquet.
        left_out: What isn't in the columns.
    """

    shown: str
    columns: tuple[Column, ...]
    parts: tuple[Part, ...]
    dialect: dict[str, Any]
    left_out: tuple[LeftOut, ...] = ()

    def __len__(self) -> int:
        """Return the number of rows."""
        return sum(part.rows for part in self.parts)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """Return a column.

        Raises:
            KeyError: There is none of that name.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def slice(self, start: int, rows: int) -> Table:
        """Return some of the rows, without what says where they are from."""
        columns = tuple(replace(each, values=each.values.slice(start, rows)) for each in self.columns)
        return replace(self, columns=columns, parts=(Part("", min(rows, len(self) - start)),))

    def where(self, row: int) -> str:
        """Return where a row is, for messages: `row 18`, or `part-2.csv: row 18` where there are several files.

        Args:
            row: Its number in the table, from 0. Shown from 1, without the header.
        """
        starts = [0]
        for part in self.parts:
            starts.append(starts[-1] + part.rows)
        index = bisect_right(starts, row) - 1
        inside = f"row {row - starts[index] + 1}"
        return inside if len(self.parts) == 1 else f"{self.parts[index].name}: {inside}"
