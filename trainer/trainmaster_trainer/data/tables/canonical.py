"""Types of Arrow columns, as Parquet files have them: brought to the few types of a table, over all files together.

The values are looked at a chunk at a time, so that a column may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from trainmaster_trainer.data.sentences import MOST_NAMED
from trainmaster_trainer.errors import DataError

from .decided import Decided
from .problems import ReadProblems
from .table import ARROW, Column, ColumnType
from .types import Where, inexact_integers

_NUMBERS = {ColumnType.INTEGER, ColumnType.NUMBER}


def canonical(
    name: str, pieces: list[tuple[str, pa.ChunkedArray]], where: Where, problems: ReadProblems, shown: str
) -> Column:
    """Return a column of several files as one column, in memory; see `decide_arrow`."""
    return decide_arrow(name, pieces, where, problems, shown).column()


@dataclass(frozen=True)
class _Piece:
    """A column of one file.

    Attributes:
        file: Name of the file.
        values: As the file has them.
    """

    file: str
    values: pa.ChunkedArray

    @cached_property
    def type(self) -> pa.DataType:
        """The type of `plain` values: without dictionary, floats as float64, integers as int64 if they all fit."""
        found = self.values.type
        if pa.types.is_dictionary(found):
            found = found.value_type
        if pa.types.is_floating(found):
            return pa.float64()
        if pa.types.is_uint64(found):
            most = (pc.max(_decoded(chunk)).as_py() for chunk in self.values.iterchunks())
            return found if any(largest is not None and largest >= 2**63 for largest in most) else pa.int64()
        return pa.int64() if pa.types.is_integer(found) else found

    @cached_property
    def is_filled(self) -> bool:
        """Whether a value isn't null; NaN is null."""
        return any(chunk.null_count < len(chunk) for chunk in self.plain())

    def plain(self) -> Iterator[pa.Array]:
        """Yield the values of each chunk in the type of `type`, NaN as null."""
        return (_plain(chunk, self.type) for chunk in self.values.iterchunks())


def _decoded(chunk: pa.Array) -> pa.Array:
    return chunk.cast(chunk.type.value_type) if pa.types.is_dictionary(chunk.type) else chunk


def _plain(chunk: pa.Array, kind: pa.DataType) -> pa.Array:
    chunk = _decoded(chunk)
    chunk = chunk if chunk.type == kind else chunk.cast(kind)
    if pa.types.is_floating(kind):
        is_nan = pc.is_nan(chunk)
        return pc.if_else(is_nan, None, chunk) if pc.any(is_nan).as_py() else chunk
    return chunk


def decide_arrow(
    name: str, pieces: list[tuple[str, pa.ChunkedArray]], where: Where, problems: ReadProblems, shown: str
) -> Decided:
    """Return what becomes of a column of several files.

    Args:
        name: Its name.
        pieces: Name of the file and values, for each file.
        where: From a row's number to where it is, for messages.
        problems: Takes values that the type can't hold.
        shown: The source, for messages.

    Raises:
        DataError: Files have types that can't be one.
    """
    every = [_Piece(file, values) for file, values in pieces]
    filled = [piece for piece in every if piece.is_filled]
    chunks = [(piece, chunk) for piece in every for chunk in piece.values.iterchunks()]
    if not filled:
        kind = ColumnType.EMPTY
        return Decided(name, kind, ARROW[kind], len(chunks), lambda index: pa.nulls(len(chunks[index][1])))
    kinds = {_kind(piece.type) for piece in filled}
    is_mixed = len(kinds) > 1 and not kinds <= _NUMBERS
    if is_mixed or len({_identity(piece.type) for piece in filled}) > 1:
        first, second = _different(filled)
        words = f"{first.file} has {first.type}, {second.file} has {second.type}"
        raise DataError(f"{shown}: column {name} has different types: {words}. Write it with one type")
    kind = ColumnType.NUMBER if len(kinds) > 1 else kinds.pop()
    joined = _joined_type({piece.type for piece in filled})

    def one(index: int) -> pa.Array:
        piece, chunk = chunks[index]
        return _joined(_plain(chunk, piece.type), joined) if piece.is_filled else pa.nulls(len(chunk), joined)

    whole = _Whole(len(chunks), joined, one)
    if all(pa.types.is_integer(piece.type) for piece in filled) and kind is ColumnType.NUMBER:
        kind = _beyond_int64(whole)
    notes, convert = _column(name, whole, kind, where, problems)
    if pa.types.is_floating(joined):
        inexact = sum(_inexact_integers(chunk) for piece in filled for chunk in piece.plain())
        notes = (f"{inexact:,} integers as the nearest number",) if inexact else notes
    arrow = joined if kind is ColumnType.OTHER else ARROW[kind]
    return Decided(name, kind, arrow, len(chunks), lambda index: convert(one(index)), notes)


@dataclass(frozen=True)
class _Whole:
    """A column over all files, in one type: `chunk` returns a part of it by number."""

    count: int
    type: pa.DataType
    chunk: Callable[[int], pa.Array]

    def __iter__(self) -> Iterator[pa.Array]:
        return map(self.chunk, range(self.count))


def _kind(found: pa.DataType) -> ColumnType:
    is_a = pa.types
    for kind, tests in {
        ColumnType.BOOLEAN: (is_a.is_boolean,),
        ColumnType.NUMBER: (is_a.is_floating, is_a.is_decimal, is_a.is_uint64),
        ColumnType.INTEGER: (is_a.is_integer,),
        ColumnType.TIME: (is_a.is_date, is_a.is_timestamp),
        ColumnType.TEXT: (is_a.is_string, is_a.is_large_string, is_a.is_string_view),
        ColumnType.BYTES: (is_a.is_binary, is_a.is_large_binary, is_a.is_fixed_size_binary, is_a.is_binary_view),
    }.items():
        if any(test(found) for test in tests):
            return kind
    return ColumnType.OTHER


def _identity(found: pa.DataType) -> object:
    """Return what must be the same in all files: the type where no other takes it, else whether a time has a zone."""
    kind = _kind(found)
    if kind is ColumnType.OTHER:
        return found
    if kind is ColumnType.TIME:
        return pa.types.is_timestamp(found) and found.tz is not None
    return ColumnType.NUMBER if kind in _NUMBERS else kind


def _different(filled: list[_Piece]) -> tuple[_Piece, _Piece]:
    first = filled[0]
    return first, next(piece for piece in filled if _identity(piece.type) != _identity(first.type))


def _joined_type(types: set[pa.DataType]) -> pa.DataType:
    """Return the one type that the chunks of all files take; a file with nulls only takes that of the others."""
    if len(types) == 1:
        return next(iter(types))
    if all(_kind(each) in _NUMBERS for each in types):
        return _widest(types)
    # times of several units, dates with times; strings and large strings
    return ARROW[_kind(next(iter(types)))]


def _joined(values: pa.Array, joined: pa.DataType) -> pa.Array:
    if joined == ARROW[ColumnType.TIME]:
        return _utc(values)
    return values if values.type == joined else values.cast(joined, safe=False)  # counted by `_inexact_integers`


def _widest(types: set[pa.DataType]) -> pa.DataType:
    """Return a type for numbers of several types: integers stay exact until their exactness has been counted."""
    if any(pa.types.is_floating(each) for each in types):
        return pa.float64()
    scale = max((each.scale for each in types if pa.types.is_decimal(each)), default=0)
    return pa.decimal256(76, scale)


def _beyond_int64(whole: _Whole) -> ColumnType:
    """Return text for integers beyond int64 that no float64 equals, as the text of a CSV file would be read."""
    inexact = sum(inexact_integers(chunk.cast(pa.large_string()).drop_null()) for chunk in whole)
    return ColumnType.TEXT if inexact else ColumnType.NUMBER


def _inexact_integers(values: pa.Array) -> int:
    """Return how many integers no float64 equals."""
    if not pa.types.is_integer(values.type):
        return 0
    back = values.cast(pa.float64(), safe=False).cast(values.type, safe=False)
    return int(pc.sum(pc.not_equal(back, values)).as_py() or 0)


def _utc(values: pa.Array) -> pa.Array:
    """Return times as microseconds without zone: UTC where they had one, later digits cut off."""
    if pa.types.is_date(values.type):
        return values.cast(pa.timestamp("ms")).cast(pa.timestamp("us"))
    naive = _naive(values)
    if values.type.unit == "ns":
        naive = pc.floor_temporal(naive, unit="microsecond")
    return naive.cast(pa.timestamp("us"))


def _naive(values: pa.Array) -> pa.Array:
    return values.cast(pa.int64()).cast(pa.timestamp(values.type.unit))


def _column(
    name: str, whole: _Whole, kind: ColumnType, where: Where, problems: ReadProblems
) -> tuple[tuple[str, ...], Callable[[pa.Array], pa.Array]]:
    """Return the notes of a column, and what makes its values of those of one file's type."""
    if kind is ColumnType.OTHER:
        return (), lambda chunk: chunk
    if kind is ColumnType.TIME:
        return _time(name, whole, where, problems)

    def cast(chunk: pa.Array) -> pa.Array:
        target = ARROW[kind]
        if chunk.type == target:
            return chunk
        return chunk.cast(target, safe=kind is not ColumnType.NUMBER)  # what is rounded is counted

    notes: tuple[str, ...] = ()
    if kind is ColumnType.TEXT and _kind(whole.type) is not kind:
        notes = ("text, because integers are beyond 64 bits and would be rounded",)
    if kind is ColumnType.NUMBER and pa.types.is_decimal(whole.type):
        inexact = sum(_inexact_decimals(chunk, cast(chunk)) for chunk in whole)
        notes = (f"{inexact:,} decimals as the nearest number",) if inexact else ()
    return notes, cast


def _time(
    name: str, whole: _Whole, where: Where, problems: ReadProblems
) -> tuple[tuple[str, ...], Callable[[pa.Array], pa.Array]]:
    unit = whole.type.unit if pa.types.is_timestamp(whole.type) else "ms"
    if unit == "ns":
        cut = sum(
            pc.sum(pc.not_equal(_utc(each).cast(pa.timestamp("ns")), _naive(each))).as_py() or 0 for each in whole
        )
        return (f"{cut:,} times cut to microseconds",) if cut else (), _utc
    if unit == "us":
        return (), _utc
    start, beyond = 0, 0
    for chunk in whole:
        try:
            _utc(chunk)
        except pa.ArrowInvalid:
            beyond += _beyond_time(name, chunk, start, where, problems, MOST_NAMED - beyond)
        start += len(chunk)
    # what is beyond has been noted, and nothing is made of this column
    return (), (lambda chunk: pa.nulls(len(chunk), ARROW[ColumnType.TIME])) if beyond else _utc


def _inexact_decimals(whole: pa.Array, found: pa.Array) -> int:
    """Return how many decimals don't come back from float64: two of them may have become one number."""
    wide = pa.decimal256(76, whole.type.scale)
    differs = pc.not_equal(found.cast(wide, safe=False), whole.cast(wide))
    return int(pc.sum(differs).as_py() or 0)


def _beyond_time(name: str, chunk: pa.Array, start: int, where: Where, problems: ReadProblems, most: int) -> int:
    """Name the first times that are beyond microseconds in 64 bits; return how many there are."""
    limit = 2**63 // {"s": 1_000_000, "ms": 1000}.get(getattr(chunk.type, "unit", "ms"), 1)
    number = _naive(chunk).cast(pa.int64()) if pa.types.is_timestamp(chunk.type) else chunk.cast(pa.int64())
    rows = pc.indices_nonzero(pc.fill_null(pc.greater(pc.abs(number), limit), False)).to_pylist()
    named = rows[: max(0, most)]
    for row in named:
        problems.add(f"{where(start + row)}, column {name}: {number[row].as_py()} is beyond the range of times")
    problems.more(len(rows) - len(named))
    return len(rows)
