"""Rows that are equal: counted across splits, and removed from the train split on request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .division import Division
from .order import Indices
from .tables.distinct import LARGE, Hashes, is_long, pick, row_hashes
from .tables.table import Column, ColumnType

_UNCOMPARED = (ColumnType.EMPTY, ColumnType.OTHER)


def codes_of(values: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return a number from 0 for each value, the same for equal values: null equals null, NaN NaN, and 0.0 -0.0."""
    if not len(values):
        return np.zeros(0, np.int64)
    if pa.types.is_floating(values.type):
        values = pc.add(values, 0.0)
    encoded = pc.dictionary_encode(values, null_encoding="encode").combine_chunks()
    chunks = encoded.chunks if isinstance(encoded, pa.ChunkedArray) else [encoded]
    found = [chunk.indices.to_numpy(zero_copy_only=False).astype(np.int64) for chunk in chunks]
    return np.concatenate(found)


def row_ids(columns: Sequence[Column], rows: int, visit: Callable[[Column], None] = lambda _: None) -> Indices:
    """Return for each row the number of the first row that is equal to it in every column: its own, if there is none.

    Exact: no hash that two different rows could share. Each column is only compared for rows that are equal in all
    columns before it, so the first columns decide how long it takes.

    Args:
        columns: What is compared. Lists and other values without a role, and columns of nulls, are not.
        rows: Number of rows.
        visit: As for `row_hashes`, where rows are so many that they are hashed.
    """
    ids = np.arange(rows, dtype=np.int64)
    compared = [column for column in columns if column.type not in _UNCOMPARED]
    if not compared:
        return ids
    is_small = rows < LARGE and not any(map(is_long, compared))
    open_rows = ids if is_small else _candidates(row_hashes(compared, rows, visit))
    group = np.zeros(len(open_rows), np.int64)
    for column in compared:
        if not len(open_rows):
            return ids
        values = column.values if len(open_rows) == rows else pa.chunked_array([pick(column.values, open_rows)])
        codes = codes_of(values)
        _, group, sizes = np.unique(group * (int(codes.max()) + 1) + codes, return_inverse=True, return_counts=True)
        is_open = sizes[group] > 1
        open_rows, group = open_rows[is_open], group[is_open]
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    ids[open_rows] = open_rows[first][group]
    return ids


def _candidates(hashes: Hashes) -> Indices:
    """Return the rows whose hash another row has too: no other row can have an equal one."""
    ordered = np.sort(hashes)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    found = np.zeros(len(hashes), np.bool_)
    step = 1 << 20
    for start in range(0, len(hashes) if len(twice) else 0, step):
        some = hashes[start : start + step]
        at = np.minimum(np.searchsorted(twice, some), len(twice) - 1)
        found[start : start + step] = twice[at] == some
    return np.flatnonzero(found).astype(np.int64)


@dataclass(frozen=True)
class Copies:
    """Rows of one split that are equal to rows of another.

    Attributes:
        rows: Those rows, in order.
        others: For each the first row of the other split that it is equal to.
    """

    rows: Indices
    others: Indices


def copies(ids: Indices, rows: Indices, others: Indices) -> Copies:
    """Return which of `rows` are equal to one of `others`."""
    partner = np.full(len(ids), len(ids), np.int64)
    np.minimum.at(partner, ids[others], others)
    found = np.sort(rows[partner[ids[rows]] < len(ids)])
    return Copies(found, partner[ids[found]])


def dedupe(division: Division, ids: Indices, what: str = "rows") -> Division:
    """Remove rows from the train split that are equal to a row of validation or test.

    Copies inside of train stay: how often a row occurs may be what the data says. Validation and test keep their rows.

    Args:
        division: The split.
        ids: `row_ids` of the features and the target; for images those of their bytes.
        what: What rows are, for the report.
    """
    leaked = np.zeros(int(ids.max(initial=-1)) + 1, bool)  # ids of rows that have been dropped are left out
    leaked[ids[division.validation]] = True
    leaked[ids[division.test]] = True
    keep = ~leaked[ids[division.train]]
    removed = int(len(keep) - keep.sum())
    said = f"data.dedupe: {removed:,} {what} of train are copies of {what} of validation or test and were removed"
    return replace(division, train=division.train[keep], said=(*division.said, said))
