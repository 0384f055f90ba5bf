"""Sources of single splits behind `source`: several tables become one whose rows have one numbering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .problems import ReadProblems
from .table import ARROW, Column, ColumnType, LeftOut, Part, Table

_NUMBERS = {ColumnType.INTEGER, ColumnType.NUMBER}
Cast = Callable[[str, Column, pa.DataType], Sequence[pa.Array]]
"""Returns the values of a column in another type; the first argument is the field of its source."""


def in_memory(_: str, piece: Column, target: pa.DataType) -> Sequence[pa.Array]:
    """Return the values of a column in another type, in memory."""
    found: Sequence[pa.Array] = piece.values.cast(target, safe=False).chunks
    return found


def join(tables: dict[str, Table], cast: Cast = in_memory) -> Table:
    """Return the rows of several sources as one table, with the columns in the order of the first.

    Args:
        tables: By the field that names the source: `source` first.
        cast: Makes the values of a column that has another type than those of the others.

    Raises:
        DataError: They don't have the same columns, or a column's types can't be one; the first ten at once.
    """
    if len(tables) == 1:
        return next(iter(tables.values()))
    found = list(tables.values())
    first = found[0]
    shown = f"{', '.join(table.shown for table in found[:-1])} and {found[-1].shown}"
    problems = ReadProblems(shown)
    _check_names(found, problems)
    problems.check("All sources of a job must have the same columns, in any order")
    columns = [_column(name, tables, problems, cast) for name in first.names]
    problems.check("Write the column with one type in all sources")
    return Table(
        shown,
        tuple(columns),
        tuple(part for table in found for part in _parts(table)),
        _dialect(tables),
        tuple(
            LeftOut(f"{table.shown}: {each.what}" if table is not first else each.what, each.why)
            for table in found
            for each in table.left_out
        ),
    )


def _check_names(tables: Sequence[Table], problems: ReadProblems) -> None:
    every = dict.fromkeys(name for table in tables for name in table.names)
    for table in tables:
        for name in every:
            if name not in table.names:
                other = next(other.shown for other in tables if name in other.names)
                problems.add(f"{table.shown} has no column {name!r}, which {other} has")


def _parts(table: Table) -> list[Part]:
    """Return the files of a table under names that are unique among several sources."""
    if len(table.parts) == 1:
        return [replace(table.parts[0], name=table.shown)]
    return [replace(part, name=f"{table.shown}: {part.name}") for part in table.parts]


def _column(name: str, sources: dict[str, Table], problems: ReadProblems, cast: Cast) -> Column:
    """Return the pieces of a column as one; notes are those of all pieces."""
    tables = list(sources.values())
    pieces = [table.column(name) for table in tables]
    notes = [
        note if table is tables[0] else f"{table.shown}: {note}"
        for piece, table in zip(pieces, tables, strict=True)
        for note in piece.notes
    ]
    filled = [(piece, table) for piece, table in zip(pieces, tables, strict=True) if piece.type is not ColumnType.EMPTY]
    kind = _kind([piece for piece, _ in filled], is_text=all(table.dialect for _, table in filled))
    if kind is None:
        words = " and ".join(f"{_type(piece)} in {table.shown}" for piece, table in filled)
        problems.add(f"column {name} is {words}")
        return pieces[0]
    target = ARROW.get(kind) or filled[0][0].values.type
    inexact = 0
    chunks: list[pa.Array] = []
    for field, piece in zip(sources, pieces, strict=True):
        if kind is ColumnType.NUMBER and piece.type is ColumnType.INTEGER:
            for values in piece.values.chunks:
                back = values.cast(target, safe=False).cast(values.type, safe=False)
                inexact += int(pc.sum(pc.not_equal(back, values)).as_py() or 0)
        chunks += piece.values.chunks if piece.values.type == target else cast(field, piece, target)
    if inexact:
        notes.append(f"{inexact:,} integers as the nearest number")
    return Column(name, kind, pa.chunked_array(chunks, type=target), tuple(notes))


def _kind(filled: Sequence[Column], *, is_text: bool) -> ColumnType | None:
    """Return the one type that several have, as files of one source would; None: there is none."""
    kinds = {piece.type for piece in filled}
    if not kinds:
        return ColumnType.EMPTY
    if kinds == {ColumnType.OTHER} and len({piece.values.type for piece in filled}) > 1:
        return None
    if len(kinds) == 1:
        return kinds.pop()
    if kinds == _NUMBERS:
        return ColumnType.NUMBER
    if is_text and kinds == {ColumnType.INTEGER, ColumnType.TEXT}:
        return ColumnType.TEXT  # an integer of a text file is written as it is printed, so nothing is lost
    return None


def _type(piece: Column) -> str:
    return str(piece.values.type) if piece.type is ColumnType.OTHER else str(piece.type)


def _dialect(tables: dict[str, Table]) -> dict[str, Any]:
    """Return how the first was read, and by its field what is different in another."""
    (_, first), *others = tables.items()
    found = dict(first.dialect)
    for field, table in others:
        different = {key: value for key, value in table.dialect.items() if first.dialect.get(key) != value}
        if different:
            found[field] = different
    return found
