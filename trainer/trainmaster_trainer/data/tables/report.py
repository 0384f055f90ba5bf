"""What is said of a table before the first step, and stored in `data.json`: each column and what becomes of it."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from trainmaster_trainer.data.sentences import printable

from .cells import categories
from .notes import notes_on
from .roles import Planned
from .table import Column, ColumnType, LeftOut, Table

WIDTH = 100
MOST_LINES = 40  # of columns, and of what is left out
HEADER = ("column", "type", "role", "missing", "distinct", "range", "becomes")
ORDERED = (ColumnType.INTEGER, ColumnType.NUMBER, ColumnType.TIME)


class Code(Protocol):
    """What becomes of a column that the model sees."""

    @property
    def name(self) -> str:
        """Return the column's name."""
        ...

    def words(self) -> str:
        """Say what becomes of it."""
        ...

    def features(self) -> list[str]:
        """Return the names of its features."""
        ...


class Encoding(Protocol):
    """What the train split was fitted with."""

    @property
    def codes(self) -> Sequence[Code]:
        """Return one code per column."""
        ...


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

    def cells(self) -> tuple[str, ...]:
        """Return the cells of its line, below HEADER."""
        return (
            printable(self.name), self.type, self.role, f"{self.missing:,}", f"{self.distinct:,}",
            printable(self.range), printable(self.becomes),
        )  # fmt: skip


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
        """Return the report as a table of at most WIDTH characters a line; longer sentences are wrapped."""
        used = [each for each in self.columns if each.role != "ignore"]
        cells = _align([HEADER, *(each.cells() for each in used[:MOST_LINES])])
        if len(used) > MOST_LINES:
            cells.append(f"  and {len(used) - MOST_LINES} more columns, in data.json")
        out = [f"{each.name}: {each.why}" for each in self.columns if each.role == "ignore"]
        out += [f"{each.what}: {each.why}" for each in self.left_out]
        below = [*self.remarks(self.columns)[:MOST_LINES], *(f"left out: {words}" for words in out[:MOST_LINES])]
        if len(out) > MOST_LINES:
            below.append(f"left out: {len(out) - MOST_LINES} more, in data.json")
        above = [part for line in self.heading() for part in _wrapped(line)]
        return "\n".join(
            [*above, *(_cut(line, WIDTH) for line in cells), *(p for line in below for p in _wrapped(line))]
        )

    def heading(self) -> list[str]:
        """Return what was read, and how."""
        used = [each for each in self.columns if each.role != "ignore"]
        features = sum(each.features for each in used)
        ending = "" if features == 1 else "s"
        lines = [
            f"{self.source}: {self.rows:,} rows, {len(used)} of {len(self.columns)} columns, "
            f"{features:,} feature{ending}"
        ]
        if self.dialect:
            lines.append("read with " + ", ".join(f"{key} {value!r}" for key, value in self.dialect.items()))
        return lines

    def remarks(self, columns: Sequence[ColumnReport]) -> list[str]:
        """Return the notes on columns, and what is dropped."""
        lines = [f"note: {each.name}: {note}" for each in columns for note in each.notes]
        if self.dropped:
            for_each = ", ".join(f"{name} ({count:,})" for name, count in self.dropped_for.items())
            lines.append(f"dropped: {self.dropped:,} of {self.rows:,} rows, for missing values in {for_each}")
        return lines


def make_report(
    table: Table, plans: Sequence[Planned], encoder: Encoding, dropped_for: dict[str, int], dropped: int
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
        notes = [*column.notes, *notes_on(table, planned, code)]
        lines.append(
            ColumnReport(
                column.name, str(column.type), planned.role, planned.why, planned.declared, planned.nulls,
                planned.distinct, _range(column, planned), becomes,
                len(code.features()) if code else int(planned.role == "image"), tuple(notes),
            )
        )  # fmt: skip
    return Report(table.shown, len(table), dropped, dropped_for, table.dialect, tuple(lines), table.left_out)


def _becomes(planned: Planned) -> str:
    return {
        "target": "what is predicted",
        "image": "pixels",
        "group": "its rows stay together",
        "weight": "weights the loss; mean 1 over train",
    }.get(planned.role, "not used")


def _range(column: Column, planned: Planned) -> str:
    if planned.distinct == 0:
        return ""
    if column.type in ORDERED:
        known = planned.summary
        if known is not None:  # no further read of the column
            edges = pa.array([known.low, known.high]).cast(column.values.type).to_pylist()
            found = dict(zip(("min", "max"), edges, strict=True))
        else:
            found = pc.min_max(column.values).as_py()
        if column.type is ColumnType.TIME:
            return " .. ".join(_times(found["min"], found["max"]))
        return f"{_value(found['min'])} .. {_value(found['max'])}"
    if planned.role == "ignore":
        return ""
    if planned.role == "text":
        found = pc.min_max(pc.utf8_length(planned.column.values)).as_py()
        return f"{found['min']:,} .. {found['max']:,} characters"
    names, _ = categories(replace(column, values=pa.chunked_array([column.values.unique()])))
    more = f" (+{len(names) - 3})" if len(names) > 3 else ""
    return ", ".join(_cut(name, 12) for name in names[:3]) + more


def _times(*moments: datetime) -> list[str]:
    """Return times no longer than they have to be: dates where all are midnights, minutes where all are whole ones."""
    parts = {(at.second or at.microsecond, at.hour or at.minute) for at in moments}
    if parts == {(0, 0)}:
        return [f"{at:%Y-%m-%d}" for at in moments]
    return [at.isoformat(" ", "auto" if any(second for second, _ in parts) else "minutes") for at in moments]


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows as lines of aligned cells; a cell that is too long for its column is cut, the last gets the rest."""
    most = (24, 8, 11, 9, 9, 36, WIDTH)
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


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(printable(line), WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
