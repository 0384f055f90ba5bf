"""Types of Arrow columns, as Parquet files have them: brought to the few types of a table, over all files together."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from trainmaster_trainer.data.sentences import MOST_NAMED
from trainmaster_trainer.errors import DataError

from .problems import Problems
from .table import ARROW, Column, ColumnType
from .types import Where, inexact_integers

_NUMBERS = {ColumnType.INTEGER, ColumnType.NUMBER}


def canonical(
    name: str, pieces: list[tuple[str, pa.ChunkedArray]], where: Where, problems: Problems, shown: str
) -> Column:
    """Return a column of several files as one column.

    Args:
        name: Its name.
        pieces: Name of the file and values, for each file.
        where: From a row's number to where it is, for messages.
        problems: Takes values that the type can't hold.
        shown: The source, for messages.

    Raises:
        DataError: Files have types that can't be one.
    """
    pieces = [(file, _plain(values)) for file, values in pieces]
    filled = [(file, values) for file, values in pieces if values.null_count < len(values)]
    rows = sum(len(values) for _, values in pieces)
    if not filled:
        return Column(name, ColumnType.EMPTY, pa.chunked_array([pa.nulls(rows)]))
    kinds = {_kind(values.type) for _, values in filled}
    is_mixed = len(kinds) > 1 and not kinds <= _NUMBERS
    if is_mixed or len({_identity(values.type) for _, values in filled}) > 1:
        first, second = _different(filled)
        words = f"{first[0]} has {first[1].type}, {second[0]} has {second[1].type}"
        raise DataError(f"{shown}: column {name} has different types: {words}. Write it with one type")
    kind = ColumnType.NUMBER if len(kinds) > 1 else kinds.pop()
    whole = pa.chunked_array(_joined(pieces, filled))
    if all(pa.types.is_integer(values.type) for _, values in filled) and kind is ColumnType.NUMBER:
        kind = _beyond_int64(whole)
    column = _column(name, whole, kind, where, problems)
    inexact = sum(_inexact_integers(values) for _, values in filled) if pa.types.is_floating(whole.type) else 0
    return replace(column, notes=(f"{inexact:,} integers as the nearest number",)) if inexact else column


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values without dictionary and run-length encoding, NaN as null, unsigned integers that fit as int64."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_floating(values.type):
        values = values.cast(pa.float64())
        return pc.if_else(pc.is_nan(values), None, values) if len(values) else values
    if pa.types.is_uint64(values.type):
        largest = pc.max(values).as_py()
        return values.cast(pa.int64()) if largest is None or largest < 2**63 else values
    return values.cast(pa.int64()) if pa.types.is_integer(values.type) else values


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


def _different(filled: list[tuple[str, pa.ChunkedArray]]) -> tuple[tuple[str, pa.ChunkedArray], ...]:
    first = filled[0]
    return first, next(each for each in filled if _identity(each[1].type) != _identity(first[1].type))


def _joined(pieces: list[tuple[str, pa.ChunkedArray]], filled: list[tuple[str, pa.ChunkedArray]]) -> list[pa.Array]:
    """Return the chunks of all files in one type; a file with nulls only takes that of the others."""
    types = {values.type for _, values in filled}
    if len(types) == 1:
        target = types.pop()
    elif all(_kind(each) in _NUMBERS for each in types):
        target = _widest(types)
    else:  # times of several units, dates with times; strings and large strings
        target = ARROW[_kind(next(iter(types)))]
    chunks = []
    for _, values in pieces:
        if values.null_count == len(values):
            chunks.append(pa.nulls(len(values), target))
        elif target == ARROW[ColumnType.TIME]:
            chunks.extend(_utc(values).chunks)
        else:
            chunks.extend(values.cast(target, safe=False).chunks)  # counted by `_inexact_integers`
    return chunks


def _widest(types: set[pa.DataType]) -> pa.DataType:
    """Return a type for numbers of several types: integers stay exact until their exactness has been counted."""
    if any(pa.types.is_floating(each) for each in types):
        return pa.float64()
    scale = max((each.scale for each in types if pa.types.is_decimal(each)), default=0)
    return pa.decimal256(76, scale)


def _beyond_int64(whole: pa.ChunkedArray) -> ColumnType:
    """Return text for integers beyond int64 that no float64 equals, as the text of a CSV file would be read."""
    inexact = inexact_integers(whole.cast(pa.large_string()).drop_null())
    return ColumnType.TEXT if inexact else ColumnType.NUMBER


def _inexact_integers(values: pa.ChunkedArray) -> int:
    """Return how many integers no float64 equals."""
    if not pa.types.is_integer(values.type):
        return 0
    back = values.cast(pa.float64(), safe=False).cast(values.type, safe=False)
    return int(pc.sum(pc.not_equal(back, values)).as_py() or 0)


def _utc(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times as microseconds without zone: UTC where they had one, later digits cut off."""
    if pa.types.is_date(values.type):
        return values.cast(pa.timestamp("ms")).cast(pa.timestamp("us"))
    naive = values.cast(pa.int64()).cast(pa.timestamp(values.type.unit))
    if values.type.unit == "ns":
        naive = pc.floor_temporal(naive, unit="microsecond")
    return naive.cast(pa.timestamp("us"))


def _column(name: str, whole: pa.ChunkedArray, kind: ColumnType, where: Where, problems: Problems) -> Column:
    notes: tuple[str, ...] = ()
    if kind is ColumnType.OTHER:
        return Column(name, kind, whole)
    if kind is ColumnType.TIME:
        try:
            found = _utc(whole)
        except pa.ArrowInvalid:
            _beyond_time(name, whole, where, problems)
            found = pa.chunked_array([pa.nulls(len(whole), ARROW[kind])])
        if pa.types.is_timestamp(whole.type) and whole.type.unit == "ns":
            cut = pc.sum(pc.not_equal(found.cast(pa.timestamp("ns")), _naive(whole))).as_py() or 0
            notes = (f"{cut:,} times cut to microseconds",) if cut else ()
        return Column(name, kind, found, notes)
    found = whole.cast(ARROW[kind], safe=kind is not ColumnType.NUMBER)  # what is rounded is counted
    if kind is ColumnType.TEXT and _kind(whole.type) is not kind:
        notes = ("text, because integers are beyond 64 bits and would be rounded",)
    if kind is ColumnType.NUMBER and pa.types.is_decimal(whole.type):
        inexact = _inexact_decimals(whole, found)
        notes = (f"{inexact:,} decimals as the nearest number",) if inexact else ()
    return Column(name, kind, found, notes)


def _naive(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.cast(pa.int64()).cast(pa.timestamp(values.type.unit))


def _inexact_decimals(whole: pa.ChunkedArray, found: pa.ChunkedArray) -> int:
    """Return how many decimals don't come back from float64: two of them may have become one number."""
    wide = pa.decimal256(76, whole.type.scale)
    differs = pc.not_equal(found.cast(wide, safe=False), whole.cast(wide))
    return int(pc.sum(differs).as_py() or 0)


def _beyond_time(name: str, whole: pa.ChunkedArray, where: Where, problems: Problems) -> None:
    """Name the first times that are beyond microseconds in 64 bits."""
    limit = 2**63 // {"s": 1_000_000, "ms": 1000}.get(getattr(whole.type, "unit", "ms"), 1)
    number = _naive(whole).cast(pa.int64()) if pa.types.is_timestamp(whole.type) else whole.cast(pa.int64())
    rows = pc.indices_nonzero(pc.fill_null(pc.greater(pc.abs(number), limit), False)).to_pylist()
    for row in rows[:MOST_NAMED]:
        problems.add(f"{where(row)}, column {name}: {number[row].as_py()} is beyond the range of times")
    problems.more(max(0, len(rows) - MOST_NAMED))
