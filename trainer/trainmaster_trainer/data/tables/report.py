"""What is said of a table before the first step, and stored in `data.json`: each column and what becomes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .cells import categories, numbers, shifted
from .codes import NumericCode
from .distinct import count_steps
from .encode import Encoder
from .roles import Planned
from .table import Column, ColumnType, LeftOut, Table

WIDTH = 100
MOST_LINES = 40  # of columns, and of what is left out
ORDERED = (ColumnType.INTEGER, ColumnType.NUMBER, ColumnType.TIME)


@dataclass(frozen=True)
class ColumnReport:
    """A line of the report.

    Attributes:
        name: Of the column.
        type: What it holds.
        role: What it is for.
        why: Why it has this role.
        declared: Whether the user said so.
        missing: Number of missing values.
        distinct: Number of distinct values.
        range: Smallest and largest value, or the first categories.
        becomes: What becomes of it.
        features: Number of its features.
        notes: What else is to be known.
    """

    name: str
    type: str
    role: str
    why: str
    declared: bool
    missing: int
    distinct: int
    range: str
    becomes: str
    features: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """The report on a table.

    Attributes:
        source: The address as the user wrote it.
        rows: Number of rows of the table.
        dropped: Number of rows that `missing: drop` drops; `dropped_for` counts them by column.
        dialect: How text was read.
        columns: One line per column.
        left_out: What isn't in the columns.
    """

    source: str
    rows: int
    dropped: int
    dropped_for: dict[str, int]
    dialect: dict[str, Any]
    columns: tuple[ColumnReport, ...]
    left_out: tuple[LeftOut, ...]

    def wire(self) -> dict[str, Any]:
        """Return the report for `data.json`, with every column."""
        found = dataclasses.asdict(self)
        found["droppedFor"], found["leftOut"] = found.pop("dropped_for"), found.pop("left_out")
        return found

    def text(self) -> str:
        """Return the report as a table of at most WIDTH characters a line."""
        used = [each for each in self.columns if each.role != "ignore"]
        features = sum(each.features for each in used)
        lines = [
            f"{self.source}: {self.rows:,} rows, {len(used)} of {len(self.columns)} columns, {features:,} features"
        ]
        if self.dialect:
            lines.append("read with " + ", ".join(f"{key} {value!r}" for key, value in self.dialect.items()))
        cells: list[tuple[str, ...]] = [("column", "type", "role", "missing", "distinct", "range", "becomes")]
        cells += [
            (each.name, each.type, each.role, f"{each.missing:,}", f"{each.distinct:,}", each.range, each.becomes)
            for each in used[:MOST_LINES]
        ]
        lines += _align(cells)
        if len(used) > MOST_LINES:
            lines.append(f"  and {len(used) - MOST_LINES} more columns, in data.json")
        lines += [f"note: {each.name}: {note}" for each in used[:MOST_LINES] for note in each.notes]
        if self.dropped:
            for_each = ", ".join(f"{name} ({count:,})" for name, count in self.dropped_for.items())
            lines.append(f"dropped: {self.dropped:,} of {self.rows:,} rows, for missing values in {for_each}")
        out = [f"{each.name}: {each.why}" for each in self.columns if each.role == "ignore"]
        out += [f"{each.what}: {each.why}" for each in self.left_out]
        lines += [f"left out: {words}" for words in out[:MOST_LINES]]
        if len(out) > MOST_LINES:
            lines.append(f"left out: {len(out) - MOST_LINES} more, in data.json")
        return "\n".join(_cut(line, WIDTH) for line in lines)


def make_report(
    table: Table, plans: Sequence[Planned], encoder: Encoder, dropped_for: dict[str, int], dropped: int
) -> Report:
    """Describe what becomes of a table.

    Args:
        table: As it was read.
        plans: What becomes of each column.
        encoder: Fitted on the train split.
        dropped_for: Number of missing values by column whose rows are dropped.
        dropped: Number of dropped rows.
    """
    codes = {code.name: code for code in encoder.codes}
    lines = []
    for planned in plans:
        column, code = planned.column, codes.get(planned.column.name)
        becomes = code.words() if code is not None else _becomes(planned)
        notes = [*column.notes, *_notes(planned, code if isinstance(code, NumericCode) else None)]
        lines.append(
            ColumnReport(
                column.name, str(column.type), planned.role, planned.why, planned.declared, planned.nulls,
                planned.distinct, _range(column, planned), becomes, len(code.features()) if code else 0, tuple(notes),
            )
        )  # fmt: skip
    return Report(table.shown, len(table), dropped, dropped_for, table.dialect, tuple(lines), table.left_out)


def _becomes(planned: Planned) -> str:
    return {
        "target": "what is predicted",
        "group": "its rows stay together",
    }.get(planned.role, "not used")


def _notes(planned: Planned, code: NumericCode | None) -> list[str]:
    """Return what should make a reader look twice: a row number, and values that float32 can't tell apart."""
    column, found = planned.column, []
    if planned.is_feature and column.type is ColumnType.INTEGER and planned.distinct == len(column.values) > 1:
        first = column.values[0].as_py()
        if first in (0, 1) and all(
            np.array_equal(numbers(piece), np.arange(start + first, start + first + len(piece.values)))
            for start, piece in column.pieces()
        ):
            found.append(f"counts the rows from {first}; declare it ignore if it is an index")
    if code is not None and planned.distinct:
        encoded = np.empty(len(column.values), np.float32)
        for start, piece in column.pieces():
            encoded[start : start + len(piece.values)] = (shifted(piece, code.offset) - code.mean) / code.std
        encoded.sort()  # NaN comes last
        left = count_steps(encoded[: len(encoded) - np.count_nonzero(np.isnan(encoded))])
        if left < planned.distinct and column.type is not ColumnType.TEXT:
            found.append(f"float32 can tell {left:,} of its {planned.distinct:,} distinct values apart")
    return found


def _range(column: Column, planned: Planned) -> str:
    if planned.distinct == 0:
        return ""
    if column.type in ORDERED:
        found = pc.min_max(column.values).as_py()
        return f"{_value(found['min'])} .. {_value(found['max'])}"
    if planned.role == "ignore":
        return ""
    names, _ = categories(replace(column, values=pa.chunked_array([column.values.unique()])))
    more = f" (+{len(names) - 3})" if len(names) > 3 else ""
    return ", ".join(_cut(name, 12) for name in names[:3]) + more


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows as lines of aligned cells; a cell that is too long for its column is cut, the last gets the rest."""
    most = (24, 8, 11, 9, 9, 24, WIDTH)
    right = (3, 4)
    widths = [
        min(limit, max(len(row[index]) for row in rows)) for index, limit in zip(range(len(rows[0])), most, strict=True)
    ]
    lines = []
    for row in rows:
        cells = [_cut(cell, width) for cell, width in zip(row, widths, strict=True)]
        placed = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append("  " + "  ".join(placed).rstrip())
    return lines


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
