"""JSON Lines: an object per line; the types of JSON are those of the columns, decided over all lines of all files.

Lines are parsed by Python's `json` and not by pyarrow's reader, which infers types by block, reads integers beyond 64
bits as rounded floats, and takes the last of two equal keys.
"""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from types import NoneType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainmaster_trainer.data.sentences import MOST_NAMED, first_of
from trainmaster_trainer.errors import DataError

from .problems import Problems
from .table import ARROW, Column, ColumnType, Part
from .text import PACKED_ERRORS, chunks_of
from .types import Where, inexact_integers, text_or_times, typed

LINES = 1 << 16
"""Lines that become Arrow arrays together; nothing is decided by such a block alone."""
_EXACT = 2**53
_MARK = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
_WORDS: dict[type, str] = {
    bool: "true or false", int: "numbers", float: "numbers", str: "text", dict: "objects", list: "lists",
}  # fmt: skip
_SHOWN = 40


class _RefusedError(ValueError):
    """A line is JSON, and not a record."""


def _record(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise _RefusedError(f"has the key {twice!r} more than once")
    return found


def _constant(word: str) -> None:
    raise _RefusedError(f"has {word}, which JSON doesn't have; write null")


_DECODER = json.JSONDecoder(object_pairs_hook=_record, parse_constant=_constant)


def _parsed(line: bytes) -> dict[str, Any]:
    """Return the record of a line.

    Raises:
        _RefusedError: It is none; with a clause that follows `line 7`.
    """
    try:
        found = _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        wrong = " ".join(f"{byte:02x}" for byte in error.object[error.start : error.start + 4])
        raise _RefusedError(f"has bytes that aren't UTF-8 ({wrong})") from None
    except json.JSONDecodeError as error:
        raise _RefusedError(f"isn't JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise _RefusedError("is nested too deeply") from None
    except _RefusedError:
        raise
    except ValueError as error:  # an integer with more digits than Python converts
        raise _RefusedError(f"can't be read: {error}") from None
    if not isinstance(found, dict):
        what = "a list" if isinstance(found, list) else "text" if isinstance(found, str) else line.decode()
        raise _RefusedError(f"is {what} and not an object")
    if b"\\ud" in line or b"\\uD" in line:
        _require_text(found)
    return found


def _require_text(found: dict[str, Any]) -> None:
    """Raise if a text has half of a pair of surrogates, which JSON can escape and no encoding of Unicode holds."""
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        raise _RefusedError(f"has \\u{half:04x}, half of a character") from None


@dataclass
class _Piece:
    """The values of a column in one block.

    Attributes:
        values: Booleans, int64, float64 or text; integers beyond int64 as text, and nulls where kinds are mixed.
        first: Type of JSON -> the first row of the table that has it, and its value.
        absent: Number of records without the key.
        inexact: Number of integers that no float64 equals, where the values are float64.
        nested: First rows with a list or an object; `more`: how many others.
    """

    values: pa.Array
    first: dict[type, tuple[int, Any]]
    absent: int = 0
    inexact: int = 0
    nested: tuple[int, ...] = ()
    more: int = 0


class JsonReader:
    """Reads the files of one table, one after the other."""

    def __init__(self, shown: str, problems: Problems) -> None:
        """Start without rows.

        Args:
            shown: The source, for messages.
            problems: Takes lines that aren't records, and values that no column can hold.
        """
        self.shown, self.problems = shown, problems
        self.blank = self.rows = 0
        self._blocks: list[tuple[int, dict[str, _Piece]]] = []

    def read(self, name: str, content: bytes, *, is_one_of_many: bool) -> Part:
        """Read the rows of a file.

        Args:
            name: Its path below the source.
            content: Its bytes.
            is_one_of_many: Whether messages need its name.

        Raises:
            DataError: It can't be decompressed, or isn't text.
        """
        prefix, before, first_line = f"{name}: " if is_one_of_many else "", self.rows, 0
        records: list[dict[str, Any]] = []
        try:
            for number, line in enumerate(_lines(name, content), start=1):
                if number == 1 and line.startswith(_WIDE_MARKS):
                    raise DataError(f"{self.shown}: {prefix}is UTF-16, and JSON lines are UTF-8; convert it")
                text = (line.removeprefix(_MARK) if number == 1 else line).strip(b" \t\r")
                if not text:
                    self.blank += 1
                    continue
                first_line = first_line or number
                try:
                    records.append(_parsed(text))
                except _RefusedError as error:
                    self.problems.add(f"{prefix}line {number} {error}")
                if len(records) == LINES:
                    self._take(records)
                    records = []
        except PACKED_ERRORS as error:
            raise DataError(f"{self.shown}: {prefix}can't be decompressed: {error}") from None
        self._take(records)
        return Part(name, self.rows - before, first_line)

    def _take(self, records: list[dict[str, Any]]) -> None:
        """Turn records into Arrow arrays."""
        if not records:
            return
        shapes = Counter(map(tuple, records))
        keys = dict.fromkeys(chain.from_iterable(shapes))
        pieces = {}
        for key in keys:
            piece = _piece([record.get(key) for record in records], self.rows)
            piece.absent = sum(count for shape, count in shapes.items() if key not in shape)
            pieces[key] = piece
        self._blocks.append((len(records), pieces))
        self.rows += len(records)

    def columns(self, where: Where, ignored: set[str]) -> list[Column]:
        """Return the columns, in the order in which their keys appear first.

        Args:
            where: From a row's number to where it is.
            ignored: Columns that may be nested, because they aren't used.
        """
        keys = list(dict.fromkeys(key for _, pieces in self._blocks for key in pieces))
        names = self._names(keys)
        found = []
        for key, name in zip(keys, names, strict=True):
            pieces = [pieces.get(key) or _Piece(pa.nulls(rows), {}, absent=rows) for rows, pieces in self._blocks]
            found.append(self._column(name, pieces, where, may_nest=name in ignored))
        return found

    def _names(self, keys: list[str]) -> list[str]:
        """Return the keys as names of columns: without surrounding space, unique and not empty, as in text files."""
        names = [key.strip() for key in keys]
        for key, name in zip(keys, names, strict=True):
            if not name:
                self.problems.add(f"the key {key!r} is no name of a column")
            elif names.count(name) > 1:
                self.problems.add(f"the key {key!r} is one of {names.count(name)} that are the column {name!r}")
        return names

    def _column(self, name: str, pieces: list[_Piece], where: Where, *, may_nest: bool) -> Column:
        rows = sum(len(piece.values) for piece in pieces)
        first: dict[type, tuple[int, Any]] = {}
        for piece in pieces:
            first = {**piece.first, **first}
        column = self._typed(name, pieces, first, where, may_nest=may_nest)
        if column is None:  # said
            return Column(name, ColumnType.OTHER, pa.chunked_array([pa.nulls(rows)]))
        absent = sum(piece.absent for piece in pieces)
        notes = (*column.notes, f"null in {absent:,} of {rows:,} rows, which don't have the key") if absent else ()
        return Column(name, column.type, column.values, notes or column.notes)

    def _typed(
        self, name: str, pieces: list[_Piece], first: dict[type, tuple[int, Any]], where: Where, *, may_nest: bool
    ) -> Column | None:
        if not first:
            return Column(
                name, ColumnType.EMPTY, pa.chunked_array([pa.nulls(sum(len(each.values) for each in pieces))])
            )
        if first.keys() & {dict, list}:
            if not may_nest:
                self._nested(name, pieces, where)
            return None
        words: dict[str, tuple[int, Any]] = {}
        for kind, place in sorted(first.items(), key=lambda each: each[1][0]):
            words.setdefault(_WORDS[kind], place)
        if len(words) > 1:
            each = [f"{what} ({where(row)}: {_cell(value)})" for what, (row, value) in words.items()]
            self.problems.add(f"column {name} has {' and '.join(each)}: write one type")
            return None
        if bool in first:
            return Column(name, ColumnType.BOOLEAN, _joined(pieces, ColumnType.BOOLEAN))
        if str in first:
            return text_or_times(name, _joined(pieces, ColumnType.TEXT), where, self.problems)
        return self._numbers(name, pieces, is_whole=float not in first, where=where)

    def _numbers(self, name: str, pieces: list[_Piece], *, is_whole: bool, where: Where) -> Column:
        """Return numbers: whole ones as int64 where all fit, and as text files are read where some don't."""
        if is_whole and not any(pa.types.is_large_string(piece.values.type) for piece in pieces):
            return Column(name, ColumnType.INTEGER, _joined(pieces, ColumnType.INTEGER))
        if is_whole:
            return typed(name, _joined(pieces, ColumnType.TEXT), ".", where, self.problems)
        whole = [piece.values for piece in pieces if not pa.types.is_floating(piece.values.type)]
        inexact = sum(piece.inexact for piece in pieces)
        inexact += sum(inexact_integers(pa.chunked_array([each.cast(pa.large_string()).drop_null()])) for each in whole)
        values = _joined(pieces, ColumnType.NUMBER)
        beyond = np.flatnonzero(pc.fill_null(pc.is_inf(values), False).to_numpy())
        for row in beyond[:MOST_NAMED].tolist():
            self.problems.add(f"{where(row)}, column {name}: is beyond what a 64-bit float holds")
        self.problems.more(max(0, len(beyond) - MOST_NAMED))
        notes = (f"{inexact:,} integers as the nearest number",) if inexact else ()
        return Column(name, ColumnType.NUMBER, values, notes)

    def _nested(self, name: str, pieces: list[_Piece], where: Where) -> None:
        rows = [row for piece in pieces for row in piece.nested]
        count = len(rows) + sum(piece.more for piece in pieces)
        some = first_of([where(row) for row in rows[:MOST_NAMED]], count, ", ")
        self.problems.add(
            f"column {name} has lists or objects ({some}): write them as columns of their own, or set "
            f"data.columns.{name}.role to ignore"
        )


def _lines(name: str, content: bytes) -> Iterator[bytes]:
    """Yield the lines of a file, without their ends. A line break inside of a JSON text is written as two letters."""
    rest = b""
    for chunk in chunks_of(name, io.BytesIO(content)):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _piece(values: list[Any], row: int) -> _Piece:
    """Return values of one block; `row` is the number of the first."""
    types = list(map(type, values))
    kinds = set(types) - {NoneType}
    first = {kind: (row + (at := types.index(kind)), values[at]) for kind in kinds}
    if kinds & {dict, list}:
        nested = [row + index for index, kind in enumerate(types) if kind in (dict, list)]
        return _Piece(
            pa.nulls(len(values)), first, nested=tuple(nested[:MOST_NAMED]), more=max(0, len(nested) - MOST_NAMED)
        )
    if kinds == {bool}:
        return _Piece(pa.array(values, pa.bool_()), first)
    if kinds == {str}:
        return _Piece(pa.array(values, pa.large_string()), first)
    if kinds == {int}:
        try:
            return _Piece(pa.array(values, pa.int64()), first)
        except (OverflowError, pa.ArrowInvalid):
            return _Piece(pa.array([None if each is None else str(each) for each in values], pa.large_string()), first)
    if kinds and kinds <= {int, float}:
        inexact = sum(_is_inexact(each) for each in values) if int in kinds else 0
        return _Piece(
            pa.array([None if each is None else _float(each) for each in values], pa.float64()), first, 0, inexact
        )
    return _Piece(pa.nulls(len(values)), first)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _is_inexact(value: float | None) -> bool:
    if type(value) is not int or abs(value) <= _EXACT:
        return False
    found = _float(value)
    return math.isinf(found) or int(found) != value


def _joined(pieces: list[_Piece], kind: ColumnType) -> pa.ChunkedArray:
    """Return the blocks of a column in one type."""
    return pa.chunked_array(
        [
            pa.nulls(len(each.values), ARROW[kind]) if not each.first else each.values.cast(ARROW[kind], safe=False)
            for each in pieces
        ],
        type=ARROW[kind],
    )


def _cell(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
