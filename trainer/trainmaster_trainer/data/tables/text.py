"""CSV and TSV files: from bytes to columns of text, every cell accounted for."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
from trainmaster_api.spec.data import Data

from trainmaster_trainer.data.sentences import MOST_NAMED
from trainmaster_trainer.errors import DataError

from .dialect import HEAD, Dialect, dialect, encoding_of, names_of
from .problems import ReadProblems
from .records import BadRecordError, Block, blocks

CHUNK = 16 << 20
PACKED_ERRORS = (gzip.BadGzipFile, EOFError, zlib.error, OSError, pa.ArrowInvalid)
"""What `chunks_of` raises for a file that is damaged, or isn't compressed as its name says."""
_GZIP = b"\x1f\x8b"
PACKED = (".gz", ".zst")


@dataclass(frozen=True)
class TextPart:
    """A file of text.

    Attributes:
        name: Its path below the source.
        names: Names of its columns, as the header has them.
        tables: Its rows in order, every column `large_string`.
        rows: Number of rows.
        first_line: Line of the first row, from 1.
        blank: Number of empty lines.
        encoding: Its encoding.
    """

    name: str
    names: list[str]
    tables: list[pa.Table]
    rows: int
    first_line: int
    blank: int
    encoding: str

    def column(self, index: int) -> list[pa.Array]:
        """Return a column."""
        return [chunk for table in self.tables for chunk in table.column(index).chunks]

    @property
    def lengths(self) -> list[int]:
        """Number of rows of each chunk of a column."""
        return [len(chunk) for chunk in self.column(0)]


@dataclass
class Cursor:
    """How far a file has been read; plain, so that it can be stored and another process can read on.

    Attributes:
        names: As the header has them; None: there is no header yet.
        rows: Number of rows so far; `blank` of empty lines.
        first_line: Line of the first row, from 1.
        encoding: Its encoding; `mark` is the length of its byte order mark.
        offset: Bytes that have been read, of the text as UTF-8 behind the mark.
    """

    names: list[str] | None = None
    rows: int = 0
    blank: int = 0
    first_line: int = 0
    encoding: str = ""
    mark: int = 0
    offset: int = 0

    def part(self, name: str, tables: list[pa.Table]) -> TextPart | None:
        """Return what has been read, None if the file is empty."""
        if self.names is None:
            return None
        first_line = self.first_line if self.rows else 0
        return TextPart(name, self.names, tables, self.rows, first_line, self.blank, self.encoding)


Opened = Callable[[int], IO[bytes]]
"""Opens a file for reading, at a byte."""


class TextReader:
    """Reads the files of one table; the first one decides the delimiter."""

    def __init__(self, shown: str, data: Data, kind: Literal["csv", "tsv"], problems: ReadProblems) -> None:
        """Start without a dialect.

        Args:
            shown: The source, for messages.
            data: `spec.training.data`.
            kind: The format.
            problems: Takes rows whose number of fields isn't that of the header.
        """
        self.shown, self.data, self.kind, self.problems = shown, data, kind, problems
        self.dialect: Dialect | None = None

    def read(self, name: str, content: bytes, *, is_one_of_many: bool) -> TextPart | None:
        """Return the rows of a file, None if it is empty.

        Args:
            name: Its path below the source.
            content: Its bytes.
            is_one_of_many: Whether messages need its name.

        Raises:
            DataError: It can't be read.
        """
        at = Cursor()
        tables = list(self.stream(name, lambda start: io.BytesIO(content[start:]), at, is_one_of_many=is_one_of_many))
        return at.part(name, tables)

    def stream(
        self, name: str, opened: Opened, at: Cursor, *, is_one_of_many: bool, size: int | None = None
    ) -> Iterator[pa.Table]:
        """Yield the rows of a file, some at a time. `at` says what the tables so far hold.

        Args:
            name: Its path below the source.
            opened: Opens the file at a byte.
            at: Where to begin, and at each table what has been read.
            is_one_of_many: Whether messages need its name.
            size: Bytes that are looked at together.

        Raises:
            DataError: It can't be read.
        """
        where = f"{self.shown}: {name}" if is_one_of_many else self.shown
        before = at.rows + 1 if at.offset else 0  # records, the header among them
        try:
            text = self._text(name, opened, at, where, size or CHUNK)
            if text is not None:
                yield from self._rows(text, at, f"{name}: " if is_one_of_many else "")
        except BadRecordError as error:
            record = f"row {before + error.record}" if before + error.record else "the header"
            is_packed = opened(0).read(len(_GZIP)) == _GZIP
            hint = ". It is compressed with gzip: name it .csv.gz" if is_packed else ""
            raise DataError(f"{where}: {record} {error.what}{hint}") from None
        except PACKED_ERRORS as error:
            raise DataError(f"{where}: can't be decompressed: {error}") from None

    def _text(self, name: str, opened: Opened, at: Cursor, where: str, size: int) -> Iterable[bytes] | None:
        """Return a file as UTF-8 from where it is to be read, None if it is empty."""
        if at.offset:
            if at.encoding == "utf-8" and not name.lower().endswith(PACKED):
                start = at.mark + at.offset
                # blocks end where they would have ended if no process had been killed
                return _utf8(chunks_of(name, opened(start), size, size - start % size), at.encoding)
            chunks = chunks_of(name, opened(0), size)
            return _without(_utf8(chain([next(chunks)[at.mark :]], chunks), at.encoding), at.offset)
        chunks = chunks_of(name, opened(0), size)
        first = next(chunks, b"")
        at.encoding, at.mark = encoding_of(first, self.data.csv.encoding, where)
        text = _utf8(chain([first[at.mark :]], chunks), at.encoding)
        head = next(text, b"")
        if self.dialect is None and head.strip():
            self.dialect = dialect(self.data, head[:HEAD], self.kind, where)
        if self.dialect is not None:
            return chain([head], text)
        for rest in text:
            if rest.strip():
                raise DataError(f"{where}: starts with {len(head):,} empty bytes: is it damaged?")
        return None

    def _rows(self, text: Iterable[bytes], at: Cursor, prefix: str) -> Iterator[pa.Table]:
        assert self.dialect is not None
        used = self.dialect
        for block in blocks(text, used.delimiter, used.quote):
            widths, body = block.widths, block.data
            at.blank += block.blank
            at.offset += block.used
            if not len(widths):
                continue
            if at.names is None:
                at.names = names_of(bytes(body[: block.head]), used.delimiter, used.quote)
                widths, body, at.first_line = widths[1:], body[block.head :], block.second_line
            bad = np.flatnonzero(widths != len(at.names))
            for row in bad[:MOST_NAMED]:
                self.problems.add(
                    f"{prefix}row {at.rows + row + 1} has {_fields(widths[row])}, the header {len(at.names)}"
                )
            self.problems.more(max(0, len(bad) - MOST_NAMED))
            at.rows += len(widths)
            if len(widths) and not self.problems.count:
                yield self._parse(block, pa.py_buffer(body), at.names, len(widths))

    def _parse(self, block: Block, body: pa.Buffer, names: list[str], rows: int) -> pa.Table:
        assert self.dialect is not None
        nulls, target_nulls = self.dialect.nulls, self.dialect.target_nulls
        table = _parsed(body, self.dialect, nulls, len(names), block.is_quoted)
        if table.num_rows != rows:
            raise RuntimeError(f"{self.shown}: {rows} rows were counted, {table.num_rows} were read")
        target = names.index(self.data.target) if self.data.target in names else None
        if target is not None and target_nulls != nulls and table.column(target).null_count:
            again = _parsed(body, self.dialect, target_nulls, len(names), block.is_quoted, only=target)
            table = table.set_column(target, str(target), again.column(0))
        return table


def _fields(count: int) -> str:
    return f"{count} field{'' if count == 1 else 's'}"


def _parsed(
    body: pa.Buffer, used: Dialect, nulls: tuple[str, ...], width: int, is_quoted: bool, only: int | None = None
) -> pa.Table:
    """Return complete records as columns of text, named by their number."""
    names = [str(index) for index in range(width)]
    wanted: dict[str, Any] = {} if only is None else {"include_columns": [str(only)]}
    return pyarrow.csv.read_csv(
        pa.BufferReader(body),
        pyarrow.csv.ReadOptions(column_names=names, block_size=body.size + 1),
        pyarrow.csv.ParseOptions(
            delimiter=used.delimiter, quote_char=used.quote, double_quote=True, escape_char=False,
            newlines_in_values=is_quoted, ignore_empty_lines=True,
        ),
        pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.large_string()), check_utf8=False, null_values=list(nulls),
            strings_can_be_null=True, quoted_strings_can_be_null=False, auto_dict_encode=False, **wanted,
        ),
    )  # fmt: skip


def chunks_of(name: str, raw: IO[bytes], size: int = CHUNK, first: int | None = None) -> Iterator[bytes]:
    """Yield the decompressed bytes of a file, `size` at a time, but for the first ones."""
    source: IO[bytes] | Any = raw
    if name.lower().endswith(".gz"):
        source = gzip.GzipFile(fileobj=raw)  # pyarrow's doesn't mind a file that is cut off
    elif name.lower().endswith(".zst"):
        source = pa.input_stream(raw, compression="zstd")
    with raw:
        while chunk := source.read(first or size):
            first = None
            yield chunk


def _without(chunks: Iterable[bytes], count: int) -> Iterator[bytes]:
    """Yield a text without its first bytes."""
    for chunk in chunks:
        yield chunk[count:]
        count = max(0, count - len(chunk))


def _utf8(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Yield a text as UTF-8, up to the first bytes that aren't of its encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    carry = b""
    is_utf8 = encoding == "utf-8"
    for chunk in chain(chunks, [b""]):
        try:
            decoded = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            yield error.object[: error.start].decode(encoding).encode()
            wrong = error.object[error.start : max(error.end, error.start + 1)]
            raise BadRecordError(0, _wrong(wrong, encoding)) from None
        if is_utf8:  # checked only
            whole = carry + chunk if carry else chunk
            carry = decoder.getstate()[0]
            yield whole[: len(whole) - len(carry)]
        else:
            yield decoded.encode()


def _wrong(found: bytes, encoding: str) -> str:
    shown = " ".join(f"{byte:02x}" for byte in found[:4])
    return f"has bytes that aren't {encoding.upper()} ({shown}): set data.csv.encoding, for example to cp1252"
