"""Types of text columns, decided over all cells of a column: never by block, file or sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trainmaster_trainer.data.sentences import MOST_NAMED

from .dialect import INTEGER, number
from .problems import Problems
from .table import ARROW, Column, ColumnType
from .times import looks_like_time, times_of

FEW = 3
"""Rows that a note names."""
Where = Callable[[int], str]


@dataclass(frozen=True)
class _Text:
    """A column of text.

    Attributes:
        name: Its name.
        values: All cells.
        cells: Those that aren't null.
        where: From a row's number to where it is.
    """

    name: str
    values: pa.ChunkedArray
    cells: pa.ChunkedArray
    where: Where

    def rows(self, mask: pa.ChunkedArray | npt.NDArray[np.bool_], count: int) -> list[int]:
        """Return the numbers of the first rows that a mask over `cells` picks."""
        picked = np.flatnonzero(np.asarray(mask))[:count]
        if not self.values.null_count:
            return [int(row) for row in picked]
        rows = np.flatnonzero(self.values.is_valid().to_numpy())
        return [int(row) for row in rows[picked]]

    def shown(self, row: int) -> str:
        """Return a cell with its place for a message."""
        return f"{self.where(row)} {self.cell(row)}"

    def cell(self, row: int) -> str:
        """Return a cell for a message."""
        value = str(self.values[row].as_py())
        return repr(value if len(value) <= 40 else value[:37] + "...")

    def spread(self, values: pa.Array | pa.ChunkedArray, kind: ColumnType) -> pa.ChunkedArray:
        """Return values of `cells` as a column, with the nulls between them."""
        return spread(values, self.values, kind)


def spread(values: pa.Array | pa.ChunkedArray, of: pa.ChunkedArray, kind: ColumnType) -> pa.ChunkedArray:
    """Return the values of those cells of a column that aren't null, with its nulls between them."""
    if of.null_count:
        is_valid = of.is_valid()
        index = pc.cumulative_sum(is_valid.cast(pa.int64()))
        values = values.take(pc.if_else(is_valid, pc.subtract(index, 1), None))
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    return pa.chunked_array(chunks, type=ARROW[kind])


def typed(name: str, values: pa.ChunkedArray, decimal: str, where: Where, problems: Problems) -> Column:
    """Return a text column as the one type that all of its cells have; text if there is none.

    Args:
        name: Its name.
        values: Text, null where a word for null stood.
        decimal: The decimal separator.
        where: From a row's number to where it is, for messages.
        problems: Takes numbers that no float64 holds, and times with and without zone in one column.
    """
    text = _Text(name, values, values.drop_null() if values.null_count else values, where)
    if not len(text.cells):
        return Column(name, ColumnType.EMPTY, pa.chunked_array([pa.nulls(len(values))]))
    for attempt in (_boolean, _integer):
        found = attempt(text)
        if found is not None:
            return found
    is_number = pc.match_substring_regex(text.cells, number(decimal))
    if pc.all(is_number).as_py():
        return _number(text, decimal, problems)
    notes = _almost(text, is_number, "numbers")
    if looks_like_time(text.cells):
        times = _times(text, problems)
        if isinstance(times, Column):
            return times
        notes = notes or times
    return Column(name, ColumnType.TEXT, values, notes)


def text_or_times(name: str, values: pa.ChunkedArray, where: Where, problems: Problems) -> Column:
    """Return a column of a format that has numbers and booleans but no times: times if all of its cells are."""
    text = _Text(name, values, values.drop_null() if values.null_count else values, where)
    notes: tuple[str, ...] = ()
    if looks_like_time(text.cells):
        times = _times(text, problems)
        if isinstance(times, Column):
            return times
        notes = times
    return Column(name, ColumnType.TEXT, values, notes)


def _boolean(text: _Text) -> Column | None:
    if str(text.cells[0].as_py()).lower() not in {"true", "false"}:
        return None
    lower = pc.utf8_lower(text.cells)
    if not pc.all(pc.is_in(lower, pa.array(["true", "false"], lower.type))).as_py():
        return None
    return Column(
        text.name, ColumnType.BOOLEAN, text.spread(pc.equal(lower, pa.scalar("true", lower.type)), ColumnType.BOOLEAN)
    )


def _integer(text: _Text) -> Column | None:
    """Return a column of integers if each is written as it would be printed."""
    try:
        found = text.cells.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    if not pc.all(pc.equal(found.cast(pa.large_string()), text.cells)).as_py():
        return None  # 007 is an identifier, 0x1F isn't decimal; -0 is left to the patterns
    return Column(text.name, ColumnType.INTEGER, text.spread(found, ColumnType.INTEGER))


def _number(text: _Text, decimal: str, problems: Problems) -> Column:
    cells = text.cells if decimal == "." else pc.replace_substring(text.cells, decimal, ".")
    is_integer = pc.match_substring_regex(cells, INTEGER)
    all_integers = bool(pc.all(is_integer).as_py())
    if all_integers and (exact := _as_int64(cells)) is not None:
        return Column(text.name, ColumnType.INTEGER, text.spread(exact, ColumnType.INTEGER))
    found = cells.cast(pa.float64())
    beyond = pc.and_(pc.is_inf(found), pc.match_substring_regex(cells, "[0-9]"))
    if pc.any(beyond).as_py():
        for row in text.rows(beyond, MOST_NAMED):
            problems.add(f"{text.where(row)}, column {text.name}: {text.cell(row)} is beyond what a 64-bit float holds")
        problems.more(max(0, pc.sum(beyond).as_py() - MOST_NAMED))
    inexact = inexact_integers(cells.filter(is_integer))
    if all_integers and inexact:
        words = f"text, because {inexact:,} integers are beyond 64 bits and would be rounded"
        return Column(text.name, ColumnType.TEXT, text.values, (words,))
    notes = (f"{inexact:,} integers as the nearest number",) if inexact else ()
    return Column(text.name, ColumnType.NUMBER, text.spread(found, ColumnType.NUMBER), notes)


def _as_int64(cells: pa.ChunkedArray) -> pa.ChunkedArray | None:
    try:
        return cells.cast(pa.int64())
    except pa.ArrowInvalid:
        return None


def inexact_integers(cells: pa.ChunkedArray) -> int:
    """Return how many integers, as text, no float64 equals."""
    long = cells.filter(pc.greater(pc.utf8_length(cells), 15))
    beyond = pc.greater(pc.utf8_length(long), 38)  # of a decimal
    decimals = long.filter(pc.invert(beyond)).cast(pa.string()).cast(pa.decimal256(39, 0))
    back = decimals.cast(pa.float64()).cast(pa.decimal256(60, 0))
    differs = pc.sum(pc.not_equal(back, decimals.cast(pa.decimal256(60, 0)))).as_py()
    return int(pc.sum(beyond).as_py() or 0) + int(differs or 0)


def _times(text: _Text, problems: Problems) -> Column | tuple[str, ...]:
    """Return a column of times, or what to note of a column that has some."""
    chunks = [times_of(chunk) for chunk in text.cells.chunks if len(chunk)]
    is_time = np.concatenate([each.is_time for each in chunks])
    if not is_time.all():
        return _almost(text, is_time, "times")
    is_zoned = np.concatenate([each.is_zoned for each in chunks])
    if is_zoned.any() and not is_zoned.all():
        first, second = text.rows(is_zoned, 1)[0], text.rows(~is_zoned, 1)[0]
        problems.add(
            f"column {text.name} has times with a zone ({text.shown(first)}) and without ({text.shown(second)}): "
            "write the zone in every row or in none"
        )
    cut = sum(each.cut for each in chunks)
    notes = (f"{cut:,} times cut to microseconds",) if cut else ()
    values = pa.chunked_array([each.values for each in chunks])
    return Column(text.name, ColumnType.TIME, text.spread(values, ColumnType.TIME), notes)


def _almost(text: _Text, mask: pa.ChunkedArray | npt.NDArray[np.bool_], what: str) -> tuple[str, ...]:
    """Return a note on a column that stays text although more than half of its cells are of another type."""
    matches = np.asarray(mask)
    good = int(np.count_nonzero(matches))
    if good * 2 <= len(matches):
        return ()
    rows = text.rows(~matches, FEW)
    rest = len(matches) - good - len(rows)
    words = ", ".join(text.shown(row) for row in rows) + (f" and {rest:,} more" if rest else "")
    return (f"text, though {good:,} of {len(matches):,} cells are {what}: not {words}",)
