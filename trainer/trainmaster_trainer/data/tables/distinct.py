"""Distinct values, hashes and chosen rows of columns that may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .cells import integers, numbers
from .table import Column, ColumnType

LARGE = 1 << 17
"""Rows from which on a table of all distinct values may not fit into memory: 50 bytes and more a value."""
LARGE_BYTES = 64 << 20
"""Bytes of text from which on the same holds for fewer rows."""
_FEW_BYTES = 4 << 20
_TEXT_BYTES = 1 << 20
_PICKED = 1024
SAMPLED = 100_000
"""Values that quartiles are looked for in."""
FEW = 4096
"""Distinct values that are kept, so that what holds for each value is looked for in these."""
Hashes = npt.NDArray[np.uint64]

_ORDERED = (ColumnType.INTEGER, ColumnType.NUMBER, ColumnType.TIME)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0xD1B54A32D192ED03)


def count_distinct(column: Column) -> int:
    """Return the number of distinct values that aren't missing; 0 for types that have none to compare."""
    if column.type in (ColumnType.EMPTY, ColumnType.OTHER, ColumnType.BYTES):
        return 0
    if not is_large(column) or column.type is ColumnType.BOOLEAN:
        values = column.values
        if column.type is ColumnType.NUMBER:
            values = pc.add(pc.if_else(pc.is_nan(values), None, values), 0.0)  # -0.0 is 0.0
        return int(pc.count_distinct(values, mode="only_valid").as_py())
    return _count_sorted(column) if column.type in _ORDERED else _count_text(column)


def is_large(column: Column) -> bool:
    """Return whether a table of all distinct values may not fit into memory."""
    return len(column.values) >= LARGE or is_long(column)


def is_long(column: Column) -> bool:
    """Return whether a column is text of more than LARGE_BYTES."""
    return column.type is ColumnType.TEXT and column.values.nbytes >= LARGE_BYTES


def _count_sorted(column: Column) -> int:
    """Sort a copy of the values: 8 bytes a row."""
    return count_steps(_sorted(_in_order_of_rows(column)))


def _in_order_of_rows(column: Column) -> npt.NDArray[Any]:
    """Return a copy of the values that aren't missing; of numbers also the missing ones, which are NaN."""
    if column.type is ColumnType.NUMBER:
        return numbers(column)
    found = integers(column)
    return found[column.values.is_valid().to_numpy()] if column.values.null_count else found


def _sorted(found: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Sort an array in place, and return its part without NaN."""
    found.sort()
    if found.dtype.kind != "f":
        return found
    return found[: int(np.searchsorted(found, np.nan))]  # NaN comes last


@dataclass(frozen=True)
class Summary:
    """What one pass over a column of numbers or times says, so that others needn't be made.

    Attributes:
        nulls: Number of missing values.
        distinct: Number of distinct values that aren't missing.
        low: Smallest of them, a time as microseconds since 1970; NaN: there is none.
        high: Largest of them.
        quartiles: Of a sample of the rows; None: not measured.
        few: The distinct values in order, where they are at most FEW: float64, or int64.
    """

    nulls: int
    distinct: int
    low: float
    high: float
    quartiles: tuple[float, float, float] | None
    few: npt.NDArray[Any] | None


def summarize(column: Column) -> Summary | None:
    """Return what there is to know of numbers or times; None for other columns."""
    if column.type not in _ORDERED or not len(column.values):
        return None
    found = _in_order_of_rows(column)
    quartiles = None
    if len(found) == len(column.values):
        step = sample_step(len(found))
        quartiles = quartiles_of(found[::step].astype(np.float64))
    found = _sorted(found)
    distinct, few = count_steps(found), None
    if not distinct:
        return Summary(len(column.values), 0, float("nan"), float("nan"), None, None)
    if distinct <= FEW:
        few = np.empty(distinct, found.dtype)
        at = 0
        for index in range(distinct):
            few[index] = found[at]
            at = int(np.searchsorted(found, found[at], "right"))
    nulls = len(column.values) - len(found)
    return Summary(nulls, distinct, found[0].item(), found[-1].item(), quartiles, few)


def sample_step(rows: int) -> int:
    """Return how far rows of a sample are from each other."""
    return max(1, rows // SAMPLED)


def quartiles_of(sample: npt.NDArray[np.float64]) -> tuple[float, float, float] | None:
    """Return the quartiles of a sample without its NaN; None where nothing is left."""
    if np.isnan(sample).all():
        return None
    with np.errstate(invalid="ignore"):  # infinite numbers, which are refused by their rows
        lower, median, upper = np.nanpercentile(sample, [25, 50, 75])
    return float(lower), float(median), float(upper)


def count_steps(values: npt.NDArray[Any]) -> int:
    """Return the number of distinct values of a sorted array."""
    if not len(values):
        return 0
    step = 1 << 20
    changes = (
        np.count_nonzero(
            values[start + 1 : start + step + 1] != values[start : start + step][: len(values) - start - 1]
        )
        for start in range(0, len(values), step)
    )
    return 1 + int(sum(changes))


def _count_text(column: Column) -> int:
    """Count the values while there are few; else their hashes of 64 bits, of which no two are likely to be the same."""
    few = pa.array([], column.values.type)
    for _, piece in column.pieces():
        few = pa.chunked_array([few, *piece.values.chunks]).unique()
        if few.nbytes > _FEW_BYTES:
            break
    else:
        return len(few.drop_null())
    found = row_hashes([column], len(column.values))
    found.sort()
    return count_steps(found) - bool(column.values.null_count)


def hashes(piece: Column) -> Hashes:
    """Return a hash of each value: the same for equal values, null among them."""
    values, is_valid = piece.values, None
    if values.null_count:
        is_valid = values.is_valid().to_numpy()
    if piece.type is ColumnType.NUMBER:
        found = (numbers(piece) + 0.0).view(np.uint64)  # -0.0 is 0.0
        found[np.isnan(found.view(np.float64))] = _NULL
    elif piece.type in (*_ORDERED, ColumnType.BOOLEAN):
        found = integers(piece).view(np.uint64)
    else:
        some = (part for chunk in values.iterchunks() for part in _parts(chunk))
        found = np.concatenate([np.zeros(0, np.uint64), *map(_of_bytes, some)])
    found = mix(found + _MIX)
    if is_valid is not None:
        found[~is_valid] = _NULL
    return found


def mix(found: Hashes) -> Hashes:
    """Return numbers whose every bit depends on all bits of the given ones (the finalizer of SplitMix64)."""
    found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return found ^ (found >> np.uint64(31))


def _parts(chunk: pa.Array) -> Iterator[pa.Array]:
    """Yield a chunk in parts of about _TEXT_BYTES: hashing takes some ten times as much."""
    rows = max(1, len(chunk) * _TEXT_BYTES // max(1, chunk.nbytes))
    return (chunk.slice(start, rows) for start in range(0, len(chunk), rows))


def _of_bytes(chunk: pa.Array) -> Hashes:
    """Return a hash of each text: the sum over its words of eight bytes, each mixed with its place."""
    chunk = pc.fill_null(chunk, b"" if pa.types.is_large_binary(chunk.type) else "")
    _, offsets, data = chunk.buffers()
    edges = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
    body = np.frombuffer(data, np.uint8)[edges[0] : edges[-1]] if data is not None else np.zeros(0, np.uint8)
    body = np.concatenate([body, np.zeros(8, np.uint8)])
    lengths, starts = np.diff(edges), edges[:-1] - edges[0]
    words = (lengths + 7) // 8
    ends = np.cumsum(words)
    place = np.arange(int(words.sum())) - np.repeat(ends - words, words)
    unaligned = np.ndarray((len(body) - 7,), np.uint64, body, strides=(1,))
    found = unaligned[np.repeat(starts, words) + 8 * place]
    left = np.repeat(lengths, words) - 8 * place
    is_last = np.flatnonzero(left < 8)  # the bytes behind it belong to the next text
    found[is_last] &= (np.uint64(1) << (8 * left[is_last]).astype(np.uint64)) - np.uint64(1)
    parts = mix(found + mix(place.astype(np.uint64) + np.uint64(1)))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(parts, dtype=np.uint64)])
    hashed: Hashes = sums[ends] - sums[ends - words] + lengths.astype(np.uint64)
    return hashed


class Places:
    """Row numbers, sorted once for all columns that values are picked from.

    Args:
        rows: Row numbers, in any order.
    """

    def __init__(self, rows: npt.NDArray[np.int64]) -> None:
        order = np.argsort(rows, kind="stable")
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        self.ordered, self._back = rows[order], pa.array(back)

    def pick(self, values: pa.ChunkedArray) -> pa.Array:
        """Return values by row number. Arrow's own `take` would join all chunks in memory first."""
        starts = np.cumsum([0, *map(len, values.chunks)])
        edges = np.searchsorted(self.ordered, starts).tolist()
        found = [
            chunk.take(pa.array(self.ordered[low:high] - start))
            for chunk, start, low, high in zip(values.chunks, starts.tolist(), edges, edges[1:], strict=False)
            if high > low
        ]
        return pa.concat_arrays(found).take(self._back) if found else pa.array([], values.type)


def pick(values: pa.ChunkedArray, rows: npt.NDArray[np.int64]) -> pa.Array:
    """Return values by row number."""
    return Places(rows).pick(values)


def pick_hashes(column: Column, rows: npt.NDArray[np.int64]) -> pa.Array:
    """Return hashes of values by row number: of 64 bits, of which no two are likely to be the same."""
    found = [np.zeros(0, np.uint64)]
    for start in range(0, len(rows), _PICKED):
        picked = pick(column.values, rows[start : start + _PICKED])
        found.append(hashes(replace(column, values=pa.chunked_array([picked]))))
    return pa.array(np.concatenate(found))


def row_hashes(columns: Sequence[Column], rows: int, visit: Callable[[Column], None] = lambda _: None) -> Hashes:
    """Return a hash of each row: the same for rows that are equal in every column.

    Args:
        columns: What is compared.
        rows: Number of rows.
        visit: Is given each column when it has been read: it is in memory, where all columns may not be.
    """
    found = np.zeros(rows, np.uint64)
    for column in columns:
        for start, piece in column.pieces():
            part = found[start : start + len(piece.values)]
            part[:] = mix(part * _MIX + hashes(piece))
        visit(column)
    return found
