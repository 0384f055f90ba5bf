"""Types of text columns, decided over all cells of a column: never by block, file or sample.

The cells are looked at a chunk at a time, so that a column may be larger than memory; which chunks it has makes no
difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainmaster_trainer.data.sentences import MOST_NAMED

from .decided import Decided
from .dialect import INTEGER, number
from .problems import ReadProblems
from .table import ARROW, Column, ColumnType
from .times import HEAD, looks_like_time, times_of

FEW = 3
"""Rows that a note names."""
Where = Callable[[int], str]
Convert = Callable[[pa.Array], pa.Array]


@dataclass(frozen=True)
class _Matches:
    """The cells that a test picks.

    Attributes:
        count: Their number.
        rows: The rows of the first of them.
    """

    count: int
    rows: list[int]


class _Text:
    """A column of text."""

    def __init__(self, name: str, chunks: Sequence[pa.Array], where: Where, *, keep: bool) -> None:
        """Count its cells.

        Args:
            name: Its name.
            chunks: All cells.
            where: From a row's number to where it is.
            keep: Whether values that were made to test the cells stay in memory, to be used.
        """
        self.name, self.chunks, self.where, self.keep = name, chunks, where, keep
        self.starts, self.total = [0], 0
        for chunk in chunks:
            self.starts.append(self.starts[-1] + len(chunk))
            self.total += len(chunk) - chunk.null_count

    def cells(self, index: int) -> pa.Array:
        """Return the cells of a chunk that aren't null."""
        chunk = self.chunks[index]
        return chunk.drop_null() if chunk.null_count else chunk

    def all_cells(self) -> Iterator[pa.Array]:
        """Yield the cells that aren't null, by chunk."""
        return (self.cells(index) for index in range(len(self.chunks)))

    def first(self, count: int) -> pa.Array:
        """Return the first cells that aren't null."""
        found: list[pa.Array] = []
        for cells in self.all_cells():
            found.append(cells.slice(0, count - sum(map(len, found))))
            if sum(map(len, found)) == count:
                break
        return pa.concat_arrays(found)

    def every(self, test: Convert) -> bool:
        """Return whether a test is true of every cell."""
        return all(pc.all(test(cells), min_count=0).as_py() for cells in self.all_cells())

    def find(self, test: Callable[[pa.Array], pa.Array | np.ndarray], most: int, *, are: bool = True) -> _Matches:
        """Return the cells that a test is true of, or false."""
        count, rows = 0, list[int]()
        for index in range(len(self.chunks)):
            mask = np.asarray(test(self.cells(index)))
            picked = np.flatnonzero(mask if are else ~mask)
            count += len(picked)
            if len(picked) and len(rows) < most:
                rows += self._rows(index, picked[: most - len(rows)])
        return _Matches(count, rows)

    def _rows(self, index: int, picked: np.ndarray) -> list[int]:
        chunk = self.chunks[index]
        if chunk.null_count:
            picked = np.flatnonzero(chunk.is_valid().to_numpy(zero_copy_only=False))[picked]
        return [self.starts[index] + int(row) for row in picked]

    def shown(self, row: int) -> str:
        """Return a cell with its place for a message."""
        return f"{self.where(row)} {self.cell(row)}"

    def cell(self, row: int) -> str:
        """Return a cell for a message."""
        index = int(np.searchsorted(self.starts, row, "right")) - 1
        value = str(self.chunks[index][row - self.starts[index]].as_py())
        return repr(value if len(value) <= 40 else value[:37] + "...")

    def decided(
        self, kind: ColumnType, convert: Convert, made: Sequence[pa.Array] = (), notes: tuple[str, ...] = ()
    ) -> Decided:
        """Return the column as one of a type.

        Args:
            kind: The type.
            convert: From cells, none of them null, to values.
            made: The values of each chunk, where they were kept.
            notes: Those of the column.
        """

        def values(index: int) -> pa.Array:
            return spread(made[index] if made else convert(self.cells(index)), self.chunks[index], kind)

        return Decided(self.name, kind, ARROW[kind], len(self.chunks), values, notes)

    def decided_text(self, notes: tuple[str, ...] = ()) -> Decided:
        """Return the column as text."""
        kind = ColumnType.TEXT
        return Decided(self.name, kind, ARROW[kind], len(self.chunks), lambda index: self.chunks[index], notes)

    def tried(self, convert: Callable[[pa.Array], pa.Array | None]) -> list[pa.Array] | None:
        """Return the values of each chunk, or nothing where they aren't kept; None if some can't be converted."""
        made = []
        for cells in self.all_cells():
            found = convert(cells)
            if found is None:
                return None
            if self.keep:
                made.append(found)
        return made


def spread(values: pa.Array, of: pa.Array, kind: ColumnType) -> pa.Array:
    """Return the values of those cells of a chunk that aren't null, with its nulls between them."""
    if of.null_count:
        is_valid = of.is_valid()
        index = pc.cumulative_sum(is_valid.cast(pa.int64()))
        values = values.take(pc.if_else(is_valid, pc.subtract(index, 1), None))
    return values if values.type == ARROW[kind] else values.cast(ARROW[kind])


def typed(name: str, values: pa.ChunkedArray, decimal: str, where: Where, problems: ReadProblems) -> Column:
    """Return a text column as the one type that all of its cells have, in memory; see `decide_text`."""
    return decide_text(name, values.chunks, decimal, where, problems).column()


def decide_text(
    name: str, chunks: Sequence[pa.Array], decimal: str, where: Where, problems: ReadProblems, *, keep: bool = True
) -> Decided:
    """Return the one type that all cells of a text column have; text if there is none.

    Args:
        name: Its name.
        chunks: Text, null where a word for null stood.
        decimal: The decimal separator.
        where: From a row's number to where it is, for messages.
        problems: Takes numbers that no float64 holds, and times with and without zone in one column.
        keep: Whether the values may stay in memory.
    """
    text = _Text(name, chunks, where, keep=keep)
    if not text.total:
        kind = ColumnType.EMPTY
        return Decided(name, kind, ARROW[kind], len(chunks), lambda index: pa.nulls(len(chunks[index])))
    if str(text.first(1)[0].as_py()).lower() in {"true", "false"} and text.every(_is_boolean):
        return text.decided(ColumnType.BOOLEAN, _booleans)
    made = text.tried(_printed_integers)
    if made is not None:
        return text.decided(ColumnType.INTEGER, lambda cells: cells.cast(pa.int64()), made)
    pattern = number(decimal)
    others = text.find(lambda cells: pc.match_substring_regex(cells, pattern), FEW, are=False)
    if not others.count:
        return _number(text, decimal, problems)
    notes = _almost(text, others, "numbers")
    if looks_like_time(text.first(HEAD)):
        times = _times(text, problems)
        if isinstance(times, Decided):
            return times
        notes = notes or times
    return text.decided_text(notes)


def decide_text_or_times(
    name: str, chunks: Sequence[pa.Array], where: Where, problems: ReadProblems, *, keep: bool = True
) -> Decided:
    """Return a column of a format that has numbers and booleans but no times: times if all of its cells are."""
    text = _Text(name, chunks, where, keep=keep)
    notes: tuple[str, ...] = ()
    if text.total and looks_like_time(text.first(HEAD)):
        times = _times(text, problems)
        if isinstance(times, Decided):
            return times
        notes = times
    return text.decided_text(notes)


def _is_boolean(cells: pa.Array) -> pa.Array:
    lower = pc.utf8_lower(cells)
    return pc.is_in(lower, pa.array(["true", "false"], lower.type))


def _booleans(cells: pa.Array) -> pa.Array:
    lower = pc.utf8_lower(cells)
    return pc.equal(lower, pa.scalar("true", lower.type))


def _printed_integers(cells: pa.Array) -> pa.Array | None:
    """Return integers, None if one of them isn't written as it would be printed."""
    found = _int64(cells)
    if found is None:
        return None
    same = pc.equal(found.cast(cells.type), cells)
    # 007 is an identifier, 0x1F isn't decimal; -0 is left to the patterns
    return found if pc.all(same, min_count=0).as_py() else None


def _int64(cells: pa.Array) -> pa.Array | None:
    try:
        return cells.cast(pa.int64())
    except pa.ArrowInvalid:
        return None


def _number(text: _Text, decimal: str, problems: ReadProblems) -> Decided:
    def plain(cells: pa.Array) -> pa.Array:
        return cells if decimal == "." else pc.replace_substring(cells, decimal, ".")

    def is_integer(cells: pa.Array) -> pa.Array:
        return pc.match_substring_regex(plain(cells), INTEGER)

    all_integers = text.every(is_integer)
    if all_integers and (exact := text.tried(lambda cells: _int64(plain(cells)))) is not None:
        return text.decided(ColumnType.INTEGER, lambda cells: plain(cells).cast(pa.int64()), exact)
    made: list[pa.Array] = []

    def is_beyond(cells: pa.Array) -> pa.Array:
        found = plain(cells).cast(pa.float64())
        if text.keep:
            made.append(found)
        is_inf = pc.is_inf(found)
        if not pc.any(is_inf).as_py():
            return is_inf
        return pc.and_(is_inf, pc.match_substring_regex(cells, "[0-9]"))

    beyond = text.find(is_beyond, MOST_NAMED)
    for row in beyond.rows:
        problems.add(f"{text.where(row)}, column {text.name}: {text.cell(row)} is beyond what a 64-bit float holds")
    problems.more(max(0, beyond.count - MOST_NAMED))
    inexact = sum(inexact_integers(plain(cells).filter(is_integer(cells))) for cells in text.all_cells())
    if all_integers and inexact:
        words = f"text, because {inexact:,} integers are beyond 64 bits and would be rounded"
        return text.decided_text((words,))
    notes = (f"{inexact:,} integers as the nearest number",) if inexact else ()
    return text.decided(ColumnType.NUMBER, lambda cells: plain(cells).cast(pa.float64()), made, notes)


def inexact_integers(cells: pa.Array) -> int:
    """Return how many integers, as text, no float64 equals."""
    long = cells.filter(pc.greater(pc.utf8_length(cells), 15))
    if not len(long):
        return 0
    beyond = pc.greater(pc.utf8_length(long), 38)  # of a decimal
    decimals = long.filter(pc.invert(beyond)).cast(pa.string()).cast(pa.decimal256(39, 0))
    back = decimals.cast(pa.float64()).cast(pa.decimal256(60, 0))
    differs = pc.sum(pc.not_equal(back, decimals.cast(pa.decimal256(60, 0)))).as_py()
    return int(pc.sum(beyond).as_py() or 0) + int(differs or 0)


def _times(text: _Text, problems: ReadProblems) -> Decided | tuple[str, ...]:
    """Return a column of times, or what to note of a column that has some."""
    zoned, cut, made = 0, 0, []
    marked: dict[bool, int] = {}  # the first row with a zone, and the first without

    def is_time(cells: pa.Array) -> np.ndarray:
        nonlocal zoned, cut
        found = times_of(cells)
        zoned += int(np.count_nonzero(found.is_zoned))
        cut += found.cut
        if text.keep:
            made.append(found.values)
        return found.is_time

    others = text.find(is_time, FEW, are=False)
    if others.count:
        return _almost(text, others, "times")
    if 0 < zoned < text.total:
        for has_zone in (True, False):
            marked[has_zone] = text.find(lambda cells: times_of(cells).is_zoned, 1, are=has_zone).rows[0]
        problems.add(
            f"column {text.name} has times with a zone ({text.shown(marked[True])}) and without "
            f"({text.shown(marked[False])}): write the zone in every row or in none"
        )
    notes = (f"{cut:,} times cut to microseconds",) if cut else ()
    return text.decided(ColumnType.TIME, lambda cells: times_of(cells).values, made, notes)


def _almost(text: _Text, others: _Matches, what: str) -> tuple[str, ...]:
    """Return a note on a column that stays text although more than half of its cells are of another type."""
    good = text.total - others.count
    if good * 2 <= text.total:
        return ()
    rest = others.count - len(others.rows)
    words = ", ".join(text.shown(row) for row in others.rows) + (f" and {rest:,} more" if rest else "")
    return (f"text, though {good:,} of {text.total:,} cells are {what}: not {words}",)
