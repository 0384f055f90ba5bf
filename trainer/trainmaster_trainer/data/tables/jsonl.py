"""JSON Lines: an object per line; the types of JSON are those of the columns, decided over all lines of all files.

Lines are parsed by Python's `json` and not by pyarrow's reader, which infers types by block, reads integers beyond 64
bits as rounded floats, and takes the last of two equal keys.
"""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from types import NoneType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainmaster_trainer.data.sentences import MOST_NAMED, first_of
from trainmaster_trainer.errors import DataError

from .decided import Decided
from .json_lines import RefusedError, lines_of, parsed
from .problems import ReadProblems
from .table import ARROW, ColumnType
from .text import CHUNK, PACKED_ERRORS, Opened
from .types import Where, decide_text, decide_text_or_times, inexact_integers

LINES = 1 << 16
"""Lines that become Arrow arrays together; nothing is decided by such a block alone."""
_EXACT = 2**53
_MARK = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
_WORDS: dict[type, str] = {
    bool: "true or false", int: "numbers", float: "numbers", str: "text", dict: "objects", list: "lists",
}  # fmt: skip
_KINDS = {kind.__name__: kind for kind in _WORDS}
_SHOWN = 40


@dataclass
class Piece:
    """The values of a column in one block.

    Attributes:
        values: Booleans, int64, float64 or text; integers beyond int64 as text, and nulls where kinds are mixed.
        first: Type of JSON -> the first row of the table that has it, and its value for a message.
        absent: Number of records without the key.
        inexact: Number of integers that no float64 equals, where the values are float64.
        nested: First rows with a list or an object; `more`: how many others.
    """

    values: pa.Array
    first: dict[type, tuple[int, str]]
    absent: int = 0
    inexact: int = 0
    nested: tuple[int, ...] = ()
    more: int = 0

    def wire(self) -> list[Any]:
        """Return all but the values, as `read` takes it."""
        first = {kind.__name__: place for kind, place in self.first.items()}
        return [first, self.absent, self.inexact, self.nested, self.more]

    @classmethod
    def read(cls, values: pa.Array, wire: list[Any]) -> Piece:
        """Return a piece with values that were stored."""
        first, absent, inexact, nested, more = wire
        kinds = {_KINDS[name]: (row, cell) for name, (row, cell) in first.items()}
        return cls(values, kinds, absent, inexact, tuple(nested), more)


Pieces = tuple[int, dict[str, Piece]]
"""A block: its number of rows, and its columns by key."""


@dataclass
class JsonCursor:
    """How far a file has been read; plain, so that it can be stored and another process can read on.

    Attributes:
        rows: Number of rows so far; `blank` of empty lines.
        first_line: Line of the first row, from 1.
        line: Number of lines so far.
        offset: Bytes that have been read, decompressed.
    """

    rows: int = 0
    blank: int = 0
    first_line: int = 0
    line: int = 0
    offset: int = 0


class _Chunks(Sequence[pa.Array]):
    """The blocks of a column in one type, made when they are needed."""

    def __init__(self, pieces: Sequence[Piece], kind: ColumnType) -> None:
        self._pieces, self._type = pieces, ARROW[kind]

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, index: int) -> pa.Array:  # type: ignore[override]
        piece = self._pieces[index]
        return piece.values.cast(self._type, safe=False) if piece.first else pa.nulls(len(piece.values), self._type)


class JsonReader:
    """Reads the files of one table, one after the other."""

    def __init__(self, shown: str, problems: ReadProblems) -> None:
        """Start without rows.

        Args:
            shown: The source, for messages.
            problems: Takes lines that aren't records, and values that no column can hold.
        """
        self.shown, self.problems = shown, problems
        self.rows = 0

    def read(self, name: str, content: bytes, at: JsonCursor, *, is_one_of_many: bool) -> list[Pieces]:
        """Return the rows of a file.

        Args:
            name: Its path below the source.
            content: Its bytes.
            at: Gets what is known of it.
            is_one_of_many: Whether messages need its name.

        Raises:
            DataError: It can't be decompressed, or isn't text.
        """
        return list(self.stream(name, lambda start: io.BytesIO(content[start:]), at, is_one_of_many=is_one_of_many))

    def stream(
        self, name: str, opened: Opened, at: JsonCursor, *, is_one_of_many: bool, size: int | None = None
    ) -> Iterator[Pieces]:
        """Yield the rows of a file, some at a time. `at` says what the blocks so far hold.

        Args:
            name: Its path below the source.
            opened: Opens the file at a byte.
            at: Where to begin, and at each block what has been read.
            is_one_of_many: Whether messages need its name.
            size: Bytes that are looked at together.

        Raises:
            DataError: It can't be read.
        """
        prefix = f"{name}: " if is_one_of_many else ""
        self.rows += at.rows
        records: list[dict[str, Any]] = []
        used, ahead = 0, replace(at)  # `at` is that of the last block
        try:
            for line in lines_of(name, opened, at.offset, size or CHUNK):
                ahead.line += 1
                ahead.offset += len(line) + 1
                used += len(line) + 1
                if ahead.line == 1 and line.startswith(_WIDE_MARKS):
                    raise DataError(f"{self.shown}: {prefix}is UTF-16, and JSON lines are UTF-8; convert it")
                text = (line.removeprefix(_MARK) if ahead.line == 1 else line).strip(b" \t\r")
                if not text:
                    ahead.blank += 1
                    continue
                ahead.first_line = ahead.first_line or ahead.line
                try:
                    records.append(parsed(text))
                except RefusedError as error:
                    self.problems.add(f"{prefix}line {ahead.line} {error}")
                if len(records) == LINES or (size is not None and used >= size and records):
                    ahead.rows += len(records)
                    at.__dict__.update(asdict(ahead))
                    yield self._pieces(records)
                    records, used = [], 0
        except PACKED_ERRORS as error:
            raise DataError(f"{self.shown}: {prefix}can't be decompressed: {error}") from None
        ahead.rows += len(records)
        at.__dict__.update(asdict(ahead))
        if records:
            yield self._pieces(records)

    def _pieces(self, records: list[dict[str, Any]]) -> Pieces:
        """Return records as Arrow arrays."""
        shapes = Counter(map(tuple, records))
        keys = dict.fromkeys(chain.from_iterable(shapes))
        pieces = {}
        for key in keys:
            piece = _piece([record.get(key) for record in records], self.rows)
            piece.absent = sum(count for shape, count in shapes.items() if key not in shape)
            pieces[key] = piece
        self.rows += len(records)
        return len(records), pieces

    def columns(
        self,
        blocks: Sequence[Pieces],
        where: Where,
        ignored: set[str],
        *,
        keep: bool = True,
        at: Callable[[float], None] = lambda _: None,
    ) -> list[Decided]:
        """Return what becomes of the columns, in the order in which their keys appear first.

        Args:
            blocks: The rows of all files.
            where: From a row's number to where it is.
            ignored: Columns that may be nested, because they aren't used.
            keep: Whether values may stay in memory.
            at: Takes the share of the columns whose type is decided.
        """
        keys = list(dict.fromkeys(key for _, pieces in blocks for key in pieces))
        names = self._names(keys)
        found = []
        for key, name in zip(keys, names, strict=True):
            pieces = [pieces.get(key) or Piece(pa.nulls(rows), {}, absent=rows) for rows, pieces in blocks]
            found.append(self._column(name, pieces, where, may_nest=name in ignored, keep=keep))
            at(len(found) / len(keys))
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

    def _column(self, name: str, pieces: list[Piece], where: Where, *, may_nest: bool, keep: bool) -> Decided:
        first: dict[type, tuple[int, str]] = {}
        for piece in pieces:
            first = {**piece.first, **first}
        column = self._typed(name, pieces, first, where, may_nest=may_nest, keep=keep)
        if column is None:  # said
            return replace(_decided(name, pieces, ColumnType.EMPTY), type=ColumnType.OTHER)
        absent = sum(piece.absent for piece in pieces)
        if not absent:
            return column
        rows = sum(len(piece.values) for piece in pieces)
        return replace(column, notes=(*column.notes, f"null in {absent:,} of {rows:,} rows, which don't have the key"))

    def _typed(
        self,
        name: str,
        pieces: list[Piece],
        first: dict[type, tuple[int, str]],
        where: Where,
        *,
        may_nest: bool,
        keep: bool,
    ) -> Decided | None:
        if not first:
            return _decided(name, pieces, ColumnType.EMPTY)
        if first.keys() & {dict, list}:
            if not may_nest:
                self._nested(name, pieces, where)
            return None
        words: dict[str, tuple[int, str]] = {}
        for kind, place in sorted(first.items(), key=lambda each: each[1][0]):
            words.setdefault(_WORDS[kind], place)
        if len(words) > 1:
            each = [f"{what} ({where(row)}: {cell})" for what, (row, cell) in words.items()]
            self.problems.add(f"column {name} has {' and '.join(each)}: write one type")
            return None
        if bool in first:
            return _decided(name, pieces, ColumnType.BOOLEAN)
        if str in first:
            return decide_text_or_times(name, _Chunks(pieces, ColumnType.TEXT), where, self.problems, keep=keep)
        return self._numbers(name, pieces, is_whole=float not in first, where=where, keep=keep)

    def _numbers(self, name: str, pieces: list[Piece], *, is_whole: bool, where: Where, keep: bool) -> Decided:
        """Return numbers: whole ones as int64 where all fit, and as text files are read where some don't."""
        filled = [piece for piece in pieces if piece.first]
        if is_whole and not any(pa.types.is_large_string(piece.values.type) for piece in filled):
            return _decided(name, pieces, ColumnType.INTEGER)
        if is_whole:
            return decide_text(name, _Chunks(pieces, ColumnType.TEXT), ".", where, self.problems, keep=keep)
        inexact = sum(piece.inexact for piece in pieces)
        for piece in filled:
            if not pa.types.is_floating(piece.values.type):
                inexact += inexact_integers(piece.values.cast(pa.large_string()).drop_null())
        start = beyond = 0
        for values in _Chunks(pieces, ColumnType.NUMBER):
            found = np.flatnonzero(pc.fill_null(pc.is_inf(values), False).to_numpy(zero_copy_only=False))
            for row in found[: max(0, MOST_NAMED - beyond)].tolist():
                self.problems.add(f"{where(start + row)}, column {name}: is beyond what a 64-bit float holds")
            start, beyond = start + len(values), beyond + len(found)
        self.problems.more(max(0, beyond - MOST_NAMED))
        notes = (f"{inexact:,} integers as the nearest number",) if inexact else ()
        return replace(_decided(name, pieces, ColumnType.NUMBER), notes=notes)

    def _nested(self, name: str, pieces: list[Piece], where: Where) -> None:
        rows = [row for piece in pieces for row in piece.nested]
        count = len(rows) + sum(piece.more for piece in pieces)
        some = first_of([where(row) for row in rows[:MOST_NAMED]], count, ", ")
        self.problems.add(
            f"column {name} has lists or objects ({some}): write them as columns of their own, or set "
            f"data.columns.{name}.role to ignore"
        )


def _decided(name: str, pieces: Sequence[Piece], kind: ColumnType) -> Decided:
    """Return a column whose blocks become those of a type by a cast."""
    chunks = _Chunks(pieces, kind)
    return Decided(name, kind, ARROW[kind], len(chunks), chunks.__getitem__)


def _piece(values: list[Any], row: int) -> Piece:
    """Return values of one block; `row` is the number of the first."""
    types = list(map(type, values))
    kinds = set(types) - {NoneType}
    first = {kind: (row + (at := types.index(kind)), _cell(values[at])) for kind in kinds}
    if kinds & {dict, list}:
        nested = [row + index for index, kind in enumerate(types) if kind in (dict, list)]
        return Piece(
            pa.nulls(len(values)), first, nested=tuple(nested[:MOST_NAMED]), more=max(0, len(nested) - MOST_NAMED)
        )
    if kinds == {bool}:
        return Piece(pa.array(values, pa.bool_()), first)
    if kinds == {str}:
        return Piece(pa.array(values, pa.large_string()), first)
    if kinds == {int}:
        try:
            return Piece(pa.array(values, pa.int64()), first)
        except (OverflowError, pa.ArrowInvalid):
            return Piece(pa.array([None if each is None else str(each) for each in values], pa.large_string()), first)
    if kinds and kinds <= {int, float}:
        inexact = sum(_is_inexact(each) for each in values) if int in kinds else 0
        return Piece(
            pa.array([None if each is None else _float(each) for each in values], pa.float64()), first, 0, inexact
        )
    return Piece(pa.nulls(len(values)), first)


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


def _cell(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
