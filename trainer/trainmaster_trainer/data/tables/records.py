"""Text cut into complete records, checked byte for byte before a parser sees it.

A parser doesn't say where it wasn't sure. So quotes, empty lines, surrounding space and the number of fields are looked
at here, with numpy over blocks of some megabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LF, CR, SPACE, TAB = 10, 13, 32, 9
LONGEST = 64 << 20
"""Bytes of the longest record; a longer one is a quote that is never closed."""

_MISPLACED = "has a quote inside a field: enclose the field in quotes and double those inside, or set data.csv.quote"

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


class BadRecordError(Exception):
    """A record that can't be read."""

    def __init__(self, record: int, what: str) -> None:
        """Say which record it is.

        Args:
            record: Its number, from 0, the header included, empty lines not.
            what: What is wrong with it.
        """
        super().__init__(what)
        self.record, self.what = record, what


@dataclass(frozen=True)
class Block:
    """Complete records, without empty lines and without space around fields.

    Attributes:
        data: Their bytes; the last one ends with a line break.
        widths: Number of fields of each.
        head: Bytes of the first record, its line break included.
        blank: Number of empty lines that were left out.
        second_line: Line, in the block from 1, of the second record; 0: there is none.
        is_quoted: Whether there is a quote.
        used: Bytes of the text that it was made of.
    """

    data: Bytes
    widths: npt.NDArray[np.int64]
    head: int
    blank: int
    second_line: int
    is_quoted: bool
    used: int


def blocks(chunks: Iterable[bytes], delimiter: str, quote: str) -> Iterator[Block]:
    """Yield the records of a text.

    Args:
        chunks: The text as UTF-8, without a byte order mark.
        delimiter: One ASCII character.
        quote: One ASCII character.

    Raises:
        BadRecordError: A quote at a wrong place or never closed, or a NUL byte.
    """
    done, pending = 0, b""
    try:
        for chunk in chunks:
            pending += chunk
            block, used = _block(pending, ord(delimiter), ord(quote), is_last=False)
            if not used and len(pending) > LONGEST:
                raise BadRecordError(0, f"is longer than {LONGEST >> 20} MiB: a quote that is never closed")
            pending = pending[used:]
            if block is not None:
                yield block
                done += len(block.widths)
        if pending:
            block, _ = _block(pending, ord(delimiter), ord(quote), is_last=True)
            if block is not None:
                yield block
    except BadRecordError as error:
        raise BadRecordError(done + error.record, error.what) from None


@dataclass(frozen=True)
class _Marks:
    """Where a text has quotes, and where fields and records end outside of them."""

    quotes: Mask
    inside: Mask
    breaks: Mask  # every CR and LF outside quotes
    ends: Mask  # the last byte of each record
    separators: Mask


def _marks(data: Bytes, delimiter: int, quote: int) -> _Marks:
    quotes = data == quote
    feeds, carriages = data == LF, data == CR
    ends = feeds.copy()
    if carriages.any():
        ends |= carriages
        ends[:-1] &= ~(carriages[:-1] & feeds[1:])
    breaks, separators = feeds | carriages, data == delimiter
    if not quotes.any():
        return _Marks(quotes, quotes, breaks, ends, separators)
    inside = np.logical_xor.accumulate(quotes)  # a doubled quote leaves and enters again: nothing lies between
    outside = ~inside
    return _Marks(quotes, inside, breaks & outside, ends & outside, separators & outside)


def _block(text: bytes, delimiter: int, quote: int, *, is_last: bool) -> tuple[Block | None, int]:
    """Return the complete records of a text, None if there are only empty lines, and the bytes that they take."""
    if is_last and not text.endswith((b"\n", b"\r")):
        text += b"\n"
    data = np.frombuffer(text, dtype=np.uint8)
    marks = _marks(data, delimiter, quote)
    ends = np.flatnonzero(marks.ends)
    if not is_last and len(ends) and ends[-1] == len(data) - 1 and data[-1] == CR:
        ends = ends[:-1]  # its LF may be the first byte of what comes
    if is_last and marks.inside[-1]:
        _raise_unclosed(data, marks, delimiter, quote)
    if not len(ends):
        return None, 0
    used = len(data) if is_last else int(ends[-1]) + 1
    data = data[:used]
    marks = _Marks(*(mask[:used] for mask in (marks.quotes, marks.inside, marks.breaks, marks.ends, marks.separators)))
    data, marks = _without_space(data, marks, delimiter, quote)
    blank, second_line = _blank_records(data, marks)
    if blank is not None:
        data = data[~blank[0]]
        if not len(data):
            return Block(data, np.empty(0, np.int64), 0, blank[1], 0, False, used), used
        marks = _marks(data, delimiter, quote)
    ends = np.flatnonzero(marks.ends)
    _check(data, marks, ends)
    widths = np.diff(np.searchsorted(np.flatnonzero(marks.separators), ends), prepend=0) + 1
    is_quoted = bool(marks.quotes.any())
    return Block(data, widths, int(ends[0]) + 1, blank[1] if blank else 0, second_line, is_quoted, used), used


def _without_space(data: Bytes, marks: _Marks, delimiter: int, quote: int) -> tuple[Bytes, _Marks]:
    """Return the text without spaces and tabs next to the end of a field, outside quotes."""
    space = data == SPACE
    if delimiter != TAB:
        space |= data == TAB
    space &= ~marks.inside
    if delimiter == SPACE or not space.any():
        return data, marks
    edge = marks.breaks | marks.separators
    at = np.flatnonzero(space)
    gaps = np.flatnonzero(np.diff(at) > 1)
    starts, stops = at[np.concatenate([[0], gaps + 1])], at[np.concatenate([gaps, [len(at) - 1]])] + 1
    outer = (starts == 0) | edge[starts - 1] | edge[np.minimum(stops, len(edge) - 1)]
    if not outer.any():
        return data, marks
    kept = data[~_ranges(len(data), starts[outer], stops[outer])]
    return kept, _marks(kept, delimiter, quote)


def _ranges(size: int, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> Mask:
    """Return a mask of disjoint ranges that don't touch, or touch in order."""
    steps = np.zeros(size + 1, dtype=np.int8)
    steps[starts] += 1
    steps[stops] -= 1
    return np.cumsum(steps[:-1], dtype=np.int8).astype(bool)


def _blank_records(data: Bytes, marks: _Marks) -> tuple[tuple[Mask, int] | None, int]:
    """Return a mask of empty lines with their number, and the line of the second record."""
    ends = np.flatnonzero(marks.ends)
    starts = np.concatenate([[0], ends[:-1] + 1])
    is_pair = (data[ends] == LF) & (ends > starts) & (data[np.maximum(ends - 1, 0)] == CR)
    is_blank = ends - is_pair <= starts
    rows = np.flatnonzero(~is_blank)[:2]
    second_line = 0
    if len(rows) == 2:
        before = data[: starts[rows[1]]]
        pairs = (before[:-1] == CR) & (before[1:] == LF)
        second_line = int(np.count_nonzero((before == LF) | (before == CR)) - np.count_nonzero(pairs)) + 1
    if not is_blank.any():
        return None, second_line
    return (_ranges(len(data), starts[is_blank], ends[is_blank] + 1), int(is_blank.sum())), second_line


def _check(data: Bytes, marks: _Marks, ends: npt.NDArray[np.int64]) -> None:
    """Raise for the first quote or byte at a place where it can't be."""
    bad = _misplaced(marks)
    nul = np.flatnonzero(data == 0)[:1]
    if len(bad) and not (len(nul) and nul[0] < bad[0]):
        raise BadRecordError(int(np.searchsorted(ends, bad[0])), _MISPLACED)
    if len(nul):
        raise BadRecordError(
            int(np.searchsorted(ends, nul[0])),
            "has a NUL byte: the file is damaged, or of an encoding that data.csv.encoding must name",
        )


def _misplaced(marks: _Marks) -> npt.NDArray[np.int64]:
    """Return the first quote that neither opens, nor closes, nor doubles."""
    if not marks.quotes.any():
        return np.empty(0, np.int64)
    at = np.flatnonzero(marks.quotes)
    fine = marks.breaks | marks.separators | marks.quotes
    opens = marks.inside[at]
    before = (at == 0) | fine[at - 1]
    after = (at == len(fine) - 1) | fine[np.minimum(at + 1, len(fine) - 1)]
    found: npt.NDArray[np.int64] = at[np.where(opens, ~before, ~after)][:1]
    return found


def _raise_unclosed(data: Bytes, marks: _Marks, delimiter: int, quote: int) -> None:
    """Raise for a text that ends inside quotes: at the first misplaced quote, else at the last that opens."""
    data, marks = _without_space(data, marks, delimiter, quote)
    bad = _misplaced(marks)
    last = bad[0] if len(bad) else np.flatnonzero(marks.quotes & marks.inside)[-1]
    ends = np.flatnonzero(marks.ends)
    starts = np.concatenate([[0], ends + 1])
    blank = ends - ((ends > starts[:-1]) & (data[np.maximum(ends - 1, 0)] == CR)) <= starts[:-1]
    record = int(np.count_nonzero(~blank[ends < last]))
    raise BadRecordError(record, _MISPLACED if len(bad) else "has a quote that is never closed")
