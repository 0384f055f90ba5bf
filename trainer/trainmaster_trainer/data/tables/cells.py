"""Values of columns: as numbers, and as names of categories."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .ahead import will_need
from .table import Column, ColumnType

FLOAT32_MAX = float(np.finfo(np.float32).max)
NUMBER_PATTERN = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int64]


def _ask_for(values: pa.ChunkedArray) -> None:
    """Let the kernel read a column; a single chunk is mostly a piece of one, which has been asked for."""
    if values.num_chunks > 1:
        will_need(values)


def is_missing(column: Column) -> Bools:
    """Return per row whether the value is missing: null, or a NaN of the file's own."""
    if column.type is not ColumnType.NUMBER and not column.values.null_count:
        return np.zeros(len(column.values), np.bool_)
    _ask_for(column.values)
    found = pc.is_null(column.values, nan_is_null=column.type is ColumnType.NUMBER)
    return np.asarray(found.to_numpy(zero_copy_only=False) if isinstance(found, pa.Array) else found.to_numpy())


def is_blank(texts: pa.Array) -> Bools:
    """Return per text whether it has no character but spaces; false for null."""
    found = pc.equal(pc.utf8_trim_whitespace(texts), pa.scalar("", texts.type))
    return np.asarray(pc.fill_null(found, False).to_numpy(zero_copy_only=False))


def without(texts: pa.Array, nulls: Bools) -> pa.Array:
    """Return texts with more nulls, without a copy of their characters."""
    if not nulls.any():
        return texts
    is_valid = np.concatenate(
        [np.zeros(texts.offset, np.bool_), texts.is_valid().to_numpy(zero_copy_only=False) & ~nulls]
    )
    bits = pa.py_buffer(np.packbits(is_valid, bitorder="little"))
    return pa.Array.from_buffers(texts.type, len(texts), [bits, *texts.buffers()[1:]], offset=texts.offset)


def is_number_text(column: Column) -> Bools:
    """Return per row of a text column whether the text is a number in decimal notation; false for null."""
    found = pc.fill_null(pc.match_substring_regex(column.values, NUMBER_PATTERN), False)
    return np.asarray(found.to_numpy())


def numbers(column: Column) -> Floats:
    """Return the values as float64, NaN where one is missing. A time is its microseconds since 1970.

    Text must be checked with `is_number_text` first.
    """
    if column.type is ColumnType.EMPTY:
        return np.full(len(column.values), np.nan)
    found = np.empty(len(column.values), dtype=np.float64)
    start = 0
    _ask_for(column.values)
    for values in column.values.iterchunks():  # nothing else of the length of the column is in memory
        if column.type in (ColumnType.INTEGER, ColumnType.NUMBER) and not values.null_count:
            found[start : start + len(values)] = values.to_numpy()
            start += len(values)
            continue
        if column.type is ColumnType.TEXT:
            values = pc.cast(pc.utf8_trim_whitespace(values), pa.float64())
        elif column.type in (ColumnType.BOOLEAN, ColumnType.TIME):
            values = pc.cast(values, pa.int64())
        # int64 beyond 2**53 has no exact float64; who needs exact differences uses `shifted`
        values = pc.fill_null(pc.cast(values, pa.float64(), safe=False), float("nan"))
        found[start : start + len(values)] = values.to_numpy(zero_copy_only=False)
        start += len(values)
    return found


def integers(column: Column) -> Codes:
    """Return whole numbers or times as int64, 0 where one is missing."""
    found = np.empty(len(column.values), dtype=np.int64)
    start = 0
    _ask_for(column.values)
    for values in column.values.iterchunks():
        filled = pc.cast(values, pa.int64())
        filled = pc.fill_null(filled, 0) if values.null_count else filled
        found[start : start + len(values)] = filled.to_numpy(zero_copy_only=False)
        start += len(values)
    return found


def shifted(column: Column, offset: float) -> Floats:
    """Return the values minus an offset as float64, NaN where one is missing.

    The difference of whole numbers is exact where it is below 2**53, however large the numbers are: nanoseconds since
    1970 keep their last digit.

    Args:
        column: Numbers, booleans, times, or text that is numbers.
        offset: Subtracted; an int for the exact difference.
    """
    if not (isinstance(offset, int) and column.type in (ColumnType.INTEGER, ColumnType.TIME)):
        found = numbers(column)
        found -= float(offset)
        return found
    found = np.empty(len(column.values), dtype=np.float64)
    for start, piece in column.pieces():
        values = integers(piece)
        high = (values >> 32) - (offset >> 32)  # the halves of an int64 are exact in float64, and neither overflows
        low = (values & 0xFFFFFFFF) - (offset & 0xFFFFFFFF)
        shifts = high.astype(np.float64) * 2.0**32 + low
        shifts[is_missing(piece)] = np.nan
        found[start : start + len(values)] = shifts
    return found


def categories(column: Column) -> tuple[list[str], Codes]:
    """Return the names of the distinct values in order, and per row the number of its name; -1 where it is missing.

    Text is ordered by code points, other values by size. A whole number is named without a decimal point, whichever
    type carries it, so that `3` and `3.0` are one category.
    """
    if column.type is ColumnType.EMPTY:
        return [], np.full(len(column.values), -1, dtype=np.int64)
    encoded = pc.dictionary_encode(column.values)
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    if isinstance(encoded, pa.ChunkedArray):  # no chunk at all
        return [], np.zeros(0, dtype=np.int64)
    found = encoded.dictionary.to_pylist()
    codes = np.asarray(pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False), dtype=np.int64)
    named = [None if value != value else name_of(value) for value in found]  # NaN isn't equal to itself
    in_order = sorted((value, name) for value, name in zip(found, named, strict=True) if name is not None)
    names = list(dict.fromkeys(name for _, name in in_order))
    number = {name: index for index, name in enumerate(names)}
    table = np.array([*(-1 if name is None else number[name] for name in named), -1], dtype=np.int64)
    return names, table[codes]


def name_of(value: Any) -> str:
    """Return the name of a category or class: text as it is, a whole number without a decimal point, true or false."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def shown(value: Any) -> str:
    """Return a cell's value for a message, cut where it is long."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
