"""How a text file is written: encoding, delimiter, decimal separator. What isn't declared is recognised, or refused."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.table import NULL_WORDS

from trainmaster_trainer.errors import DataError

DELIMITERS = (",", ";", "\t", "|")
NAMES = {"\t": "tab", " ": "space"}
HEAD = 256 << 10
_MARKS = (  # UTF-32's mark starts with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WHOLE, _EXPONENT = "(?:0|[1-9][0-9]*)", "(?:[eE][+-]?[0-9]+)?"
INTEGER = f"^-?{_WHOLE}$"


def number(decimal: str) -> str:
    """Return the pattern (RE2) of a number: no leading zeros, no `+`, no thousands separators; `inf` is one."""
    mark = "\\" + decimal
    return f"^-?(?:{_WHOLE}(?:{mark}[0-9]*)?{_EXPONENT}|{mark}[0-9]+{_EXPONENT}|(?i:inf|infinity))$"


def _fraction(decimal: str) -> str:
    """Return the pattern of a number with a decimal separator."""
    return f"^-?(?:{_WHOLE}\\{decimal}[0-9]*|\\{decimal}[0-9]+){_EXPONENT}$"


def _grouped(mark: str) -> str:
    """Return the pattern of a number whose separator may as well group thousands."""
    return f"^-?[1-9][0-9]{{0,2}}\\{mark}[0-9]{{3}}$"


@dataclass(frozen=True)
class Dialect:
    """How text is read.

    Attributes:
        delimiter: Between two fields.
        quote: Around a field.
        nulls: Words that mean null where they aren't quoted.
        target_nulls: Those of the target.
    """

    delimiter: str
    quote: str
    nulls: tuple[str, ...]
    target_nulls: tuple[str, ...]


def dialect(data: Data, head: bytes, kind: Literal["csv", "tsv"], name: str) -> Dialect:
    """Return how a file is read.

    Args:
        data: `spec.training.data`.
        head: The start of the file as UTF-8, without a byte order mark.
        kind: Its format.
        name: Its name, for messages.

    Raises:
        DataError: The delimiter can't be recognised, or what is declared can't be used.
    """
    quote = data.csv.quote
    declared = data.csv.delimiter or ("\t" if kind == "tsv" else None)
    for field, value in (("quote", quote), ("delimiter", declared)):
        if value is not None and (not value.isascii() or value in "\r\n\0"):
            raise DataError(f"data.csv.{field}: {value!r} can't be used; it must be one ASCII character, no line break")
    if declared == quote:
        raise DataError(f"data.csv.delimiter and data.csv.quote are both {quote!r}")
    nulls = NULL_WORDS if data.nulls is None else tuple(data.nulls)
    targets = ("",) if data.nulls is None else nulls
    return Dialect(declared or recognise_delimiter(head, quote, name), quote, nulls, targets)


def encoding_of(head: bytes, declared: str | None, name: str) -> tuple[str, int]:
    """Return the encoding of a text and the length of its byte order mark.

    Args:
        head: Its first bytes.
        declared: `data.csv.encoding`.
        name: Name of the file, for messages.

    Raises:
        DataError: There is no such encoding, or the byte order mark contradicts it.
    """
    mark = next(((mark, found) for mark, found in _MARKS if head.startswith(mark)), None)
    if declared is None:
        return (mark[1], len(mark[0])) if mark else ("utf-8", 0)
    try:
        codec = codecs.lookup(declared).name
        with suppress(UnicodeError):
            bytes(4).decode(declared)  # some codecs are for other things than text
    except LookupError:
        words = "is no text encoding; write for example utf-8, utf-16, latin-1 or cp1252"
        raise DataError(f"data.csv.encoding: {declared!r} {words}") from None
    codec = codec.removesuffix("-sig")
    if mark is None:
        return codec, 0
    if mark[1] == codec or mark[1].rpartition("-")[0] == codec:
        return mark[1], len(mark[0])
    words = f"data.csv.encoding says {declared}, the file starts with the byte order mark of {mark[1]}: remove one"
    raise DataError(f"{name}: {words}")


def recognise_delimiter(head: bytes, quote: str, name: str) -> str:
    """Return the delimiter: the one that the header has, as often as every row does.

    Args:
        head: The start of the text.
        quote: The character around fields.
        name: Name of the file, for messages.

    Raises:
        DataError: Several are possible.
    """
    lines = _records(head, quote)
    counts = {mark: [line.count(mark) for line in lines] for mark in DELIMITERS}
    in_header = [mark for mark in DELIMITERS if lines and counts[mark][0]]
    if len(in_header) == 1:
        return in_header[0]
    if in_header:
        even = [mark for mark in in_header if len(set(counts[mark])) == 1]
        if len(even) == 1 and len(lines) > 1:
            return even[0]
        raise DataError(f"{name}: the delimiter may be {_listed(in_header)}; set data.csv.delimiter")
    in_rows = [mark for mark in DELIMITERS if any(counts[mark])]  # one column, unless the header is short
    if len(in_rows) > 1:
        raise DataError(f"{name}: the header has one field; if the rows have several, set data.csv.delimiter")
    return in_rows[0] if in_rows else ","


def _records(head: bytes, quote: str) -> list[str]:
    """Return the complete records of the start of a text, without what is quoted, without empty lines."""
    pieces = head.decode("utf-8", errors="ignore").split(quote)
    if len(pieces) % 2 == 0 and len(head) >= HEAD:
        pieces = pieces[:-1]
    outside = "_".join(pieces[::2])
    lines = outside.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if len(head) >= HEAD and len(lines) > 1:
        lines = lines[:-1]  # cut off somewhere
    return [line for line in lines if line.strip()]


def _listed(marks: Iterable[str]) -> str:
    return " or ".join(NAMES.get(mark, f"`{mark}`") for mark in marks)


def names_of(record: bytes, delimiter: str, quote: str) -> list[str]:
    """Return the fields of the header, without surrounding space and byte order marks."""
    text = io.StringIO(record.decode(), newline="")
    fields = next(csv.reader(text, delimiter=delimiter, quotechar=quote, strict=False))
    return [field.strip().strip("\ufeff").strip() for field in fields]


def decimal_of(columns: Mapping[str, pa.ChunkedArray], delimiter: str, declared: str | None, name: str) -> str:
    """Return the decimal separator of the text columns of a table, decided over all of their cells.

    Args:
        columns: Text by the name of its column.
        delimiter: With `;`, a point may group thousands.
        declared: `data.csv.decimal`.
        name: The source, for messages.

    Raises:
        DataError: Numbers may be read in two ways.
    """
    if declared is not None:
        return declared
    commas = _cells_with(columns, ",")
    if not commas and delimiter != ";":
        return "."
    points = _cells_with(columns, ".")
    if commas and points:
        pairs = [next(iter(found.items())) for found in (points, commas)]
        words = " and ".join(f"{cells.first!r} (column {column})" for column, cells in pairs)
        raise DataError(f"{name}: {words} have different decimal separators; set data.csv.decimal")
    for found in (commas, points):
        if found and all(cells.are_grouped for cells in found.values()):
            column, cells = next(iter(found.items()))
            words = f"{cells.first!r} (column {column}) may have a decimal separator or group thousands"
            raise DataError(f"{name}: {words}; set data.csv.decimal")
    return "," if commas else "."


@dataclass(frozen=True)
class _Cells:
    """Cells of a column that have a decimal separator: the first, and whether in all of them it may group thousands."""

    first: str
    are_grouped: bool


def _cells_with(columns: Mapping[str, pa.ChunkedArray], mark: str) -> dict[str, _Cells]:
    """Return the cells with a decimal separator, of columns where more than half of the cells are numbers."""
    found = {}
    either = f"(?:{number('.')})|(?:{number(',')})"
    for name, values in columns.items():
        if not any(pc.any(pc.match_substring(chunk, mark)).as_py() for chunk in values.iterchunks()):
            continue
        numbers, first, are_grouped = 0, None, True
        for chunk in values.iterchunks():  # a column may be larger than memory
            numbers += pc.sum(pc.match_substring_regex(chunk, either)).as_py() or 0
            cells = chunk.filter(pc.match_substring_regex(chunk, _fraction(mark)))
            if len(cells):
                first = cells[0].as_py() if first is None else first
                are_grouped = are_grouped and pc.all(pc.match_substring_regex(cells, _grouped(mark))).as_py()
        if first is not None and 2 * numbers > len(values) - values.null_count:
            found[name] = _Cells(first, are_grouped)
    return found
