"""A source read as a table: text with explicit options, JSON by its types, Parquet by its schema.

A column has one type over all files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from trainmaster_api.spec.data import TABLE_ENDINGS, Data, TableFormat

from trainmaster_trainer.data.files import Files, Found, partitions
from trainmaster_trainer.errors import DataError

from .ahead import will_need
from .canonical import decide_arrow
from .decided import Decided, Draft
from .dialect import Dialect, decimal_of
from .jsonl import JsonCursor, JsonReader, Pieces
from .problems import ReadProblems
from .table import LeftOut, Part, Table
from .text import TextPart, TextReader
from .types import Where, decide_text

_PANDAS_INDEX = re.compile(r"__index_level_\d+__")
_NAMED = 3


def read_table(files: Files, data: Data) -> Table:
    """Return the rows of a source, whole and checked, in memory.

    Args:
        files: Its files.
        data: `spec.training.data`.

    Raises:
        DataError: Something can't be read, or could be read in two ways; with the first ten problems.
    """
    kind, found = table_files(files, data)
    left_out = files_left_out(found)
    if kind == "parquet":
        return draft_parquet(files.shown, _parquet(files, found), left_out).table()
    if kind == "jsonl":
        json, rows = JsonReader(files.shown, ReadProblems(files.shown)), {}
        for name in found.names:
            at, part = JsonCursor(), name[found.root :]
            blocks = json.read(part, files.read(name), at, is_one_of_many=len(found.names) > 1)
            rows[part] = at, blocks
        return draft_jsonl(json, rows, data, left_out).table()
    reader = TextReader(files.shown, data, kind, ReadProblems(files.shown))
    parts = {
        name: reader.read(name[found.root :], files.read(name), is_one_of_many=len(found.names) > 1)
        for name in found.names
    }
    return draft_text(reader, parts, left_out).table()


def table_files(files: Files, data: Data) -> tuple[TableFormat, Found]:
    """Return the format of a source and its files."""
    kind = data.table_format
    assert kind is not None  # a rule of the contract
    return kind, files.table(tuple(ending for ending in TABLE_ENDINGS if ending.startswith(f".{kind}")))


def files_left_out(found: Found) -> list[LeftOut]:
    """Return the files of a folder that aren't read."""
    left_out = []
    for names, why in ((found.hidden, "hidden or a marker"), (found.foreign, "of another format")):
        if names:
            left_out.append(LeftOut(_counted(names, "file"), why))
    return left_out


def _counted(names: tuple[str, ...] | list[str], what: str) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{len(names):,} {what}{'' if len(names) == 1 else 's'}: {', '.join(names[:_NAMED])}{more}"


# --- text ------------------------------------------------------------------------------------------------------------


def draft_text(
    reader: TextReader,
    read: Mapping[str, TextPart | None],
    left_out: list[LeftOut],
    *,
    keep: bool = True,
    at: Callable[[float], None] = lambda _: None,
) -> Draft:
    """Return what becomes of files of text.

    Args:
        reader: Has read them.
        read: The rows of each file by its name; None: it is empty.
        left_out: What isn't read of the source.
        keep: Whether values may stay in memory.
        at: Takes the share of the columns whose type is decided.

    Raises:
        DataError: Rows are broken, or something could be read in two ways.
    """
    problems, data, shown = reader.problems, reader.data, reader.shown
    parts = [part for part in read.values() if part is not None]
    empty = [name for name, part in read.items() if part is None]
    if not parts:
        raise DataError(f"{shown} is empty")
    what = "rows" if problems.count else "names in the header"
    for part in parts:
        _check_names(part.names, problems, f"{part.name}: " if len(parts) > 1 else "", may_start_nameless=True)
    problems.check(f"Correct the {what}, or set data.csv.delimiter and data.csv.quote")
    left_out = [*left_out, *_text_left_out(parts, empty, shown)]
    names = [name for name in parts[0].names if name]
    _check_same({part.name: [name for name in part.names if name] for part in parts}, shown)
    table = _require_rows(
        Draft(shown, (), tuple(Part(part.name, part.rows, part.first_line) for part in parts), {}), "a header and "
    )
    values = {
        name: pa.chunked_array(
            [chunk for part in parts for chunk in part.column(part.names.index(name))], type=pa.large_string()
        )
        for name in names
    }
    assert reader.dialect is not None  # there is a part
    decimal = decimal_of(values, reader.dialect.delimiter, data.csv.decimal, shown)
    where = table.table().where
    columns = []
    for index, name in enumerate(names):
        columns.append(decide_text(name, values.pop(name).chunks, decimal, where, problems, keep=keep))
        at((index + 1) / len(names))
    columns += _partitions([(part.name, part.lengths) for part in parts], names, where, problems)
    problems.check()
    if not columns:
        raise DataError(f"{shown} has no columns")
    dialect = _dialect(reader, reader.dialect, parts, decimal)
    return replace(table, columns=tuple(columns), dialect=dialect, left_out=tuple(left_out))


def _require_rows(draft: Draft, before: str = "") -> Draft:
    if not any(part.rows for part in draft.parts):
        raise DataError(f"{draft.shown} has {before}no rows")
    return draft


def _text_left_out(parts: list[TextPart], empty: list[str], shown: str) -> Iterable[LeftOut]:
    if empty:
        yield LeftOut(_counted(empty, "file"), "empty")
    blank = sum(part.blank for part in parts)
    if blank:
        yield LeftOut(f"{blank:,} empty line{'' if blank == 1 else 's'}", "no fields")
    yield from _index(parts, shown)


def _dialect(reader: TextReader, used: Dialect, parts: list[TextPart], decimal: str) -> dict[str, Any]:
    """Return how text was read, and what of that was recognised rather than declared."""
    data, kind = reader.data, reader.kind
    recognised = {
        "encoding": data.csv.encoding is None,
        "delimiter": data.csv.delimiter is None and kind != "tsv",
        "decimal": data.csv.decimal is None,
    }
    return {
        "format": kind,
        "encoding": ", ".join(dict.fromkeys(part.encoding for part in parts)),
        "delimiter": used.delimiter,
        "decimal": decimal,
        "quote": used.quote,
        "nulls": list(used.nulls),
        "targetNulls": list(used.target_nulls),
        "recognised": [name for name, is_recognised in recognised.items() if is_recognised],
    }


def _index(parts: list[TextPart], shown: str) -> Iterable[LeftOut]:
    """Return the nameless first column as left out if it counts the rows, as pandas' and R's writers do.

    Raises:
        DataError: It is something else.
    """
    before = 0
    for part in parts:
        if part.names[0]:
            before += part.rows
            continue
        if not _counts(part.column(0), before):
            where = f"{shown}: {part.name}" if len(parts) > 1 else shown
            raise DataError(
                f"{where}: field 1 of the header has no name, and its column doesn't count the rows; name it, or write "
                "the file without it (pandas: index=False)"
            )
        before += part.rows
    if not parts[0].names[0]:
        yield LeftOut("the first column, which has no name", "counts the rows")


def _counts(chunks: list[pa.Array], before: int) -> bool:
    """Return whether values are 0, 1, 2 ... or 1, 2, 3 ..., in this file or over all files."""
    starts = {0, 1, before, before + 1}
    rows = 0
    for chunk in chunks:
        try:
            counted = chunk.cast(pa.int64())
        except pa.ArrowInvalid:
            return False
        steps = np.arange(rows, rows + len(chunk))
        starts = {start for start in starts if not chunk.null_count and np.array_equal(counted, steps + start)}
        rows += len(chunk)
    return bool(starts)


# --- names -----------------------------------------------------------------------------------------------------------


def _check_names(names: list[str], problems: ReadProblems, prefix: str, *, may_start_nameless: bool) -> None:
    """Note names that are empty or there twice."""
    first: dict[str, int] = {}
    for field, name in enumerate(names, start=1):
        if not name:
            if field > 1 or not may_start_nameless:
                problems.add(f"{prefix}field {field} of the header has no name")
        elif name in first:
            problems.add(f"{prefix}field {field} of the header is {name!r} again, as field {first[name]}")
        first.setdefault(name, field)


def _check_same(names: dict[str, list[str]], shown: str) -> None:
    """Raise if files don't have the same columns; their order is free."""
    problems = ReadProblems(shown)
    every = list(dict.fromkeys(name for columns in names.values() for name in columns))
    for part, columns in names.items():
        for name in every:
            if name not in columns:
                problems.add(f"{part} has no column {name!r}, which other files have")
    problems.check()


class _Repeated(Sequence[pa.Array]):
    """Chunks of one value each, made when they are needed."""

    def __init__(self, values: list[tuple[str | None, int]]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int) -> pa.Array:  # type: ignore[override]
        value, rows = self._values[index]
        return pa.repeat(pa.scalar(value, pa.large_string()), rows)


def _partitions(
    parts: list[tuple[str, list[int]]], names: list[str], where: Where, problems: ReadProblems
) -> list[Decided]:
    """Return the columns that folders such as `year=2024` stand for; `parts` has the lengths of each file's chunks."""
    keys = [partitions(name) for name, _ in parts]
    if any(list(each) != list(keys[0]) for each in keys):
        first = next(index for index, each in enumerate(keys) if list(each) != list(keys[0]))
        raise DataError(
            f"{problems.shown}: {parts[0][0]} has the partitions {list(keys[0])}, {parts[first][0]} {list(keys[first])}"
        )
    both = [key for key in keys[0] if key in names or not key]
    if both:
        raise DataError(f"{problems.shown}: {both[0]!r} is a column and a partition: rename one")
    columns = []
    for key in keys[0]:
        values = [(each[key], rows) for each, (_, lengths) in zip(keys, parts, strict=True) for rows in lengths]
        columns.append(decide_text(key, _Repeated(values), ".", where, problems, keep=False))
    return columns


# --- JSON Lines ------------------------------------------------------------------------------------------------------


def draft_jsonl(
    reader: JsonReader,
    read: Mapping[str, tuple[JsonCursor, list[Pieces]]],
    data: Data,
    left_out: list[LeftOut],
    *,
    keep: bool = True,
    at: Callable[[float], None] = lambda _: None,
) -> Draft:
    """Return what becomes of files of JSON Lines.

    Args:
        reader: Has read them.
        read: What is known of each file, and its rows, by its path below the source.
        data: `spec.training.data`.
        left_out: What isn't read of the source.
        keep: Whether values may stay in memory.
        at: Takes the share of the columns whose type is decided.

    Raises:
        DataError: Lines are no records, or something can't be held.
    """
    problems = reader.problems
    problems.check("Each line must be one JSON object: names with numbers, text, true, false or null")
    blank = sum(cursor.blank for cursor, _ in read.values())
    if blank:
        left_out = [*left_out, LeftOut(f"{blank:,} empty line{'' if blank == 1 else 's'}", "no object")]
    parts = tuple(Part(name, cursor.rows, cursor.first_line) for name, (cursor, _) in read.items())
    draft = Draft(reader.shown, (), parts, {"format": "jsonl", "encoding": "utf-8"}, tuple(left_out))
    where = draft.table().where
    blocks = [block for _, found in read.values() for block in found]
    columns = reader.columns(blocks, where, nested_columns(data), keep=keep, at=at)
    lengths = [(name, [rows for rows, _ in found]) for name, (_, found) in read.items()]
    columns += _partitions(lengths, [column.name for column in columns], where, problems)
    problems.check()
    _require_rows(draft)
    if not columns:
        raise DataError(f"{reader.shown} has no columns")
    return replace(draft, columns=tuple(columns))


def nested_columns(data: Data) -> set[str]:
    """Return the columns that may have lists and objects, because they aren't used."""
    return {name for name, spec in data.columns.items() if spec.role == "ignore"}


# --- Parquet ---------------------------------------------------------------------------------------------------------


def parquet_error(files: Files, found: Found, part: str, error: Exception) -> DataError:
    """Return the refusal of a file that isn't Parquet."""
    file = f"{files.shown}: {part}" if len(found.names) > 1 else files.shown
    return DataError(f"{file}: can't be read as Parquet: {str(error).strip().splitlines()[0]}")


def _parquet(files: Files, found: Found) -> dict[str, pa.Table]:
    tables = {}
    for name in found.names:
        part = name[found.root :]
        try:
            tables[part] = pq.ParquetFile(pa.BufferReader(files.read(name))).read()
        except (pa.ArrowException, OSError) as error:
            raise parquet_error(files, found, part, error) from None
    return tables


def _lengths(table: pa.Table) -> list[int]:
    return [len(chunk) for chunk in table.column(0).iterchunks()] if table.num_columns else [table.num_rows]


def draft_parquet(
    shown: str, tables: Mapping[str, pa.Table], left_out: list[LeftOut], at: Callable[[float], None] = lambda _: None
) -> Draft:
    """Return what becomes of Parquet files.

    Args:
        shown: The source, for messages.
        tables: Each file's content by its path below the source.
        left_out: What isn't read of the source.
        at: Takes the share of the columns whose type is decided.

    Raises:
        DataError: Files don't go together, or a value can't be held.
    """
    problems = ReadProblems(shown)
    tables = {
        part: table.rename_columns([name.strip() for name in table.column_names]) for part, table in tables.items()
    }
    for part, table in tables.items():
        _check_names(table.column_names, problems, f"{part}: " if len(tables) > 1 else "", may_start_nameless=False)
    problems.check()
    _check_same({part: table.column_names for part, table in tables.items()}, shown)
    first = next(iter(tables.values()))
    index = [name for name in first.column_names if _PANDAS_INDEX.fullmatch(name)]
    left_out = [*left_out, *(LeftOut(f"column {name}", "the index of pandas, which has no name") for name in index)]
    names = [name for name in first.column_names if name not in index]
    parts = tuple(Part(part, table.num_rows) for part, table in tables.items())
    draft = Draft(shown, (), parts, {}, tuple(left_out))
    where = draft.table().where
    columns = []
    for number, name in enumerate(names, start=1):
        pieces = [(part, table.column(name)) for part, table in tables.items()]
        for _, values in pieces:
            will_need(values)
        columns.append(decide_arrow(name, pieces, where, problems, shown))
        at(number / len(names))
    lengths = [(part, _lengths(table)) for part, table in tables.items()]
    columns += _partitions(lengths, names, where, problems)
    problems.check()
    _require_rows(draft)
    if not columns:
        raise DataError(f"{shown} has no columns")
    return replace(draft, columns=tuple(columns))
