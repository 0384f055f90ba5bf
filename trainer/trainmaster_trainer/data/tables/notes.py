"""What should make a reader of the report look twice at a column: said, and nothing is changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trainmaster_trainer.data.sentences import quoted
from trainmaster_trainer.data.spellings import look_alikes

from .cells import NUMBER_PATTERN, Floats, categories, numbers, shifted, shown
from .codes import DatetimeCode, NumericCode
from .distinct import SAMPLED, count_steps, quartiles_of, sample_step
from .roles import Planned
from .table import ColumnType, Table

FAR = 10_000
"""Times the distance between the quartiles. A value further from the median than this is named."""
FAR_OF_USUAL = 10
"""The same for values that often stand for a missing one."""
USUAL_NUMBERS = (*(10**digits - 1 for digits in range(3, 11)), 2**31 - 1, 2**31)
USUAL_TIMES = tuple(
    abs(int(np.datetime64(day, "us").astype(np.int64))) for day in ("1970-01-01", "1900-01-01", "9999-12-31")
)
TOLD_APART = 0.9
"""Share of the distinct values that float32 must keep apart: of millions of measured ones it merges some harmlessly."""
_SAMPLED_BYTES = 4 << 20  # of text
_AROUND_NUMBERS = re.compile(r"[\s$€£¥%'’]|,(?=\d{3}(?!\d))")
_MINUS = str.maketrans({"\u2212": "-", "\u2013": "-"})
_NUMBER = re.compile(NUMBER_PATTERN, re.ASCII)


def notes_on(table: Table, planned: Planned, code: object | None) -> list[str]:
    """Return notes on a column: a row number, values that float32 can't tell apart, values far off, odd spellings.

    Args:
        table: For the places of rows.
        planned: The column and what becomes of it.
        code: Its encoding, if it is a feature.
    """
    found = [*_counts_rows(planned)]
    if isinstance(code, NumericCode) and planned.distinct:
        found += _told_apart(planned, code)
    if isinstance(code, NumericCode | DatetimeCode) and planned.distinct:
        found += _far(table, planned)
    if planned.column.type is ColumnType.TEXT and planned.role in ("categorical", "ignore"):
        found += _spelled(planned)
    return found


def _counts_rows(planned: Planned) -> Iterator[str]:
    column = planned.column
    if planned.is_feature and column.type is ColumnType.INTEGER and planned.distinct == len(column.values) > 1:
        first = column.values[0].as_py()
        if first in (0, 1) and all(
            np.array_equal(numbers(piece), np.arange(start + first, start + first + len(piece.values)))
            for start, piece in column.pieces()
        ):
            yield f"counts the rows from {first}; declare it ignore if it is an index"


def _told_apart(planned: Planned, code: NumericCode) -> Iterator[str]:
    if planned.column.type is ColumnType.TEXT:
        return
    if planned.summary is not None and planned.summary.few is not None:  # what rows have is a matter of these values
        few = pa.array(planned.summary.few).cast(planned.column.values.type)
        column = replace(planned.column, values=pa.chunked_array([few]))
    else:
        column = planned.column
    encoded = np.empty(len(column.values), np.float32)
    for start, piece in column.pieces():
        encoded[start : start + len(piece.values)] = (shifted(piece, code.offset) - code.mean) / code.std
    encoded.sort()  # NaN comes last
    left = count_steps(encoded[: len(encoded) - np.count_nonzero(np.isnan(encoded))])
    if left < TOLD_APART * planned.distinct:
        yield f"float32 can tell {left:,} of its {planned.distinct:,} distinct values apart"


def _far(table: Table, planned: Planned) -> Iterator[str]:
    """Yield values that may be words for a missing one, such as -9999 or 1970-01-01, or a slip of the decimal point."""
    column = planned.column
    known = planned.summary
    quartiles = known.quartiles if known is not None else None
    if quartiles is None:
        step = sample_step(len(column.values))
        sample = np.concatenate([numbers(piece)[-start % step :: step] for start, piece in column.pieces()])
        quartiles = quartiles_of(sample)
    if quartiles is None or not quartiles[2] > quartiles[0]:  # at least half of the values are one
        return
    usual = USUAL_TIMES if column.type is ColumnType.TIME else USUAL_NUMBERS
    row, count = -1, 0
    if known is not None:
        edges = np.array([known.low, known.high], np.float64)
        if not (np.abs(edges - quartiles[1]) / (quartiles[2] - quartiles[0]) > FAR_OF_USUAL).any():
            return
        if known.few is not None and not _are_far(known.few.astype(np.float64), quartiles, usual).any():
            return
    for start, piece in column.pieces():
        far = np.flatnonzero(_are_far(numbers(piece), quartiles, usual))
        if len(far):
            row, count = (row if count else start + int(far[0])), count + len(far)
    if count:
        more = f" and {count - 1:,} more" if count > 1 else ""
        yield (
            f"{table.where(row)} is {shown(column.values[row].as_py())}{more}, far from all others; "
            "if that stands for a missing value, leave the cell empty"
        )


def _are_far(values: Floats, quartiles: tuple[float, float, float], usual: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    distance = np.abs(values - quartiles[1]) / (quartiles[2] - quartiles[0])
    is_far: npt.NDArray[np.bool_] = distance > FAR_OF_USUAL
    if is_far.any():  # nearly never
        is_far &= (distance > FAR) | np.isin(np.abs(values), usual)
    return is_far


def _spelled(planned: Planned) -> Iterator[str]:
    values = planned.column.values
    if planned.role == "categorical":
        names, _ = categories(replace(planned.column, values=pa.chunked_array([values.unique()])))
        alike = look_alikes(names)
        if alike:
            yield f"{_some(alike)} are different categories; write them alike if they are one"
    else:
        names = pc.unique(_first_texts(values)).drop_null().to_pylist()
    bare = [name for name in names if not _NUMBER.match(name) and _NUMBER.match(_stripped(name))]
    if 2 * len(bare) > len(names):
        yield f"text such as {shown(bare[0])} is no number; to use it as one, write it without unit and grouping"


def _first_texts(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the first SAMPLED values, fewer of long texts: the column may be larger than memory."""
    some = values.slice(0, SAMPLED)
    sizes = np.cumsum(pc.fill_null(pc.binary_length(some), 0).to_numpy())
    return some.slice(0, int(np.searchsorted(sizes, _SAMPLED_BYTES, "right")))


def _stripped(name: str) -> str:
    return _AROUND_NUMBERS.sub("", name.translate(_MINUS))


def _some(groups: list[tuple[str, ...]]) -> str:
    return "; ".join(quoted(group) for group in groups[:3]) + ("; ..." if len(groups) > 3 else "")
