"""A source read as a table: text with explicit options, JSON by its types, Parquet by its schema.

A column has one type over all files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from trainmaster_api.spec.data import TABLE_ENDINGS, Data

from trainmaster_trainer.data.files import Files, Found, partitions
from trainmaster_trainer.errors import DataError

from .canonical import canonical
from .dialect import decimal_of
from .jsonl import JsonReader
from .problems import Problems
from .table import Column, LeftOut, Part, Table
from .text import TextPart, TextReader
from .types import Where, typed

_PANDAS_INDEX = re.compile(r"__index_level_\d+__")
_NAMED = 3


def read_table(files: Files, data: Data) -> Table:
    """Return the rows of a source, whole and checked.

    Args:
        files: Its files.
        data: `spec.training.data`.

    Raises:
        DataError: Something can't be read, or could be read in two ways; with the first ten problems.
    """
    kind = data.table_format
    assert kind is not None  # a rule of the contract
    found = files.table(tuple(ending for ending in TABLE_ENDINGS if ending.startswith(f".{kind}")))
    left_out = _left_out(found)
    if kind == "parquet":
        table = _parquet(files, found, left_out)
    elif kind == "jsonl":
        table = _jsonl(files, found, data, left_out)
    else:
        table = _text(files, found, data, kind, left_out)
    if not len(table):
        raise DataError(
            f"{files.shown} has {'a header and ' if table.columns and kind in ('csv', 'tsv') else ''}no rows"
        )
    if not table.columns:
        raise DataError(f"{files.shown} has no columns")
    return table


def _left_out(found: Found) -> list[LeftOut]:
    left_out = []
    for names, why in ((found.hidden, "hidden or a marker"), (found.foreign, "of another format")):
        if names:
            left_out.append(LeftOut(_counted(names, "file"), why))
    return left_out


def _counted(names: tuple[str, ...] | list[str], what: str) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{len(names):,} {what}{'' if len(names) == 1 else 's'}: {', '.join(names[:_NAMED])}{more}"


# --- text ------------------------------------------------------------------------------------------------------------


def _text(files: Files, found: Found, data: Data, kind: Literal["csv", "tsv"], left_out: list[LeftOut]) -> Table:
    problems = Problems(files.shown)
    reader = TextReader(files.shown, data, kind, problems)
    parts, empty = [], []
    for name in found.names:
        part = reader.read(name[found.root :], files.read(name), is_one_of_many=len(found.names) > 1)
        if part is None:
            empty.append(name)
        else:
            parts.append(part)
    if not parts:
        raise DataError(f"{files.shown} is empty")
    for part in parts:
        _check_names(part.names, problems, f"{part.name}: " if len(parts) > 1 else "", may_start_nameless=True)
    problems.check("Correct the rows, or set data.csv.delimiter and data.csv.quote")
    if empty:
        left_out.append(LeftOut(_counted(empty, "file"), "empty"))
    blank = sum(part.blank for part in parts)
    if blank:
        left_out.append(LeftOut(f"{blank:,} empty line{'' if blank == 1 else 's'}", "no fields"))
    left_out.extend(_index(parts, files.shown))
    names = [name for name in parts[0].names if name]
    _check_same({part.name: [name for name in part.names if name] for part in parts}, files.shown)
    shown = Table(
        files.shown, (), tuple(Part(part.name, part.rows, part.first_line) for part in parts), {}
    )  # where a row is
    values = {
        name: pa.chunked_array(
            [chunk for part in parts for chunk in part.column(part.names.index(name))], type=pa.large_string()
        )
        for name in names
    }
    decimal = decimal_of(values, _delimiter(reader), data.csv.decimal, files.shown)
    columns = [typed(name, values.pop(name), decimal, shown.where, problems) for name in names]
    columns += _partitions([(part.name, part.rows) for part in parts], names, shown.where, problems)
    problems.check()
    return Table(
        files.shown, tuple(columns), shown.parts, _dialect(reader, data, kind, parts, decimal), tuple(left_out)
    )


def _delimiter(reader: TextReader) -> str:
    assert reader.dialect is not None  # there is a part
    return reader.dialect.delimiter


def _dialect(reader: TextReader, data: Data, kind: str, parts: list[TextPart], decimal: str) -> dict[str, Any]:
    """Return how text was read, and what of that was recognised rather than declared."""
    used = reader.dialect
    assert used is not None
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
        chunks = part.column(0)
        try:
            counted = pa.chunked_array(chunks, type=pa.large_string()).cast(pa.int64())
        except pa.ArrowInvalid:
            counted = None
        if counted is None or counted.null_count or not _counts(counted.to_numpy(), before):
            where = f"{shown}: {part.name}" if len(parts) > 1 else shown
            raise DataError(
                f"{where}: field 1 of the header has no name, and its column doesn't count the rows; name it, or write "
                "the file without it (pandas: index=False)"
            )
        before += part.rows
    if not parts[0].names[0]:
        yield LeftOut("the first column, which has no name", "counts the rows")


def _counts(values: np.ndarray[Any, Any], before: int) -> bool:
    """Return whether values are 0, 1, 2 ... or 1, 2, 3 ..., in this file or over all files."""
    steps = np.arange(len(values))
    return any(np.array_equal(values, steps + start) for start in (0, 1, before, before + 1))


# --- names -----------------------------------------------------------------------------------------------------------


def _check_names(names: list[str], problems: Problems, prefix: str, *, may_start_nameless: bool) -> None:
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
    problems = Problems(shown)
    every = list(dict.fromkeys(name for columns in names.values() for name in columns))
    for part, columns in names.items():
        for name in every:
            if name not in columns:
                problems.add(f"{part} has no column {name!r}, which other files have")
    problems.check()


def _partitions(parts: list[tuple[str, int]], names: list[str], where: Where, problems: Problems) -> list[Column]:
    """Return the columns that folders such as `year=2024` stand for."""
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
        chunks = [
            pa.repeat(pa.scalar(each[key], pa.large_string()), rows)
            for each, (_, rows) in zip(keys, parts, strict=True)
        ]
        columns.append(typed(key, pa.chunked_array(chunks, type=pa.large_string()), ".", where, problems))
    return columns


# --- JSON Lines ------------------------------------------------------------------------------------------------------


def _jsonl(files: Files, found: Found, data: Data, left_out: list[LeftOut]) -> Table:
    problems = Problems(files.shown)
    reader = JsonReader(files.shown, problems)
    parts = [
        reader.read(name[found.root :], files.read(name), is_one_of_many=len(found.names) > 1) for name in found.names
    ]
    problems.check("Each line must be one JSON object: names with numbers, text, true, false or null")
    if reader.blank:
        left_out.append(LeftOut(f"{reader.blank:,} empty line{'' if reader.blank == 1 else 's'}", "no object"))
    where = Table(files.shown, (), tuple(parts), {}).where
    ignored = {name for name, spec in data.columns.items() if spec.role == "ignore"}
    columns = reader.columns(where, ignored)
    names = [column.name for column in columns]
    columns += _partitions([(part.name, part.rows) for part in parts], names, where, problems)
    problems.check()
    return Table(files.shown, tuple(columns), tuple(parts), {"format": "jsonl", "encoding": "utf-8"}, tuple(left_out))


# --- Parquet ---------------------------------------------------------------------------------------------------------


def _parquet(files: Files, found: Found, left_out: list[LeftOut]) -> Table:
    problems = Problems(files.shown)
    tables: dict[str, pa.Table] = {}
    for name in found.names:
        part = name[found.root :]
        try:
            table = pq.ParquetFile(pa.BufferReader(files.read(name))).read()
        except (pa.ArrowException, OSError) as error:
            file = f"{files.shown}: {part}" if len(found.names) > 1 else files.shown
            reason = str(error).strip().splitlines()[0]
            raise DataError(f"{file}: can't be read as Parquet: {reason}") from None
        tables[part] = table.rename_columns([column.strip() for column in table.column_names])
        prefix = f"{part}: " if len(found.names) > 1 else ""
        _check_names(tables[part].column_names, problems, prefix, may_start_nameless=False)
    problems.check()
    _check_same({part: table.column_names for part, table in tables.items()}, files.shown)
    first = next(iter(tables.values()))
    index = [name for name in first.column_names if _PANDAS_INDEX.fullmatch(name)]
    left_out.extend(LeftOut(f"column {name}", "the index of pandas, which has no name") for name in index)
    names = [name for name in first.column_names if name not in index]
    parts = tuple(Part(part, table.num_rows) for part, table in tables.items())
    where = Table(files.shown, (), parts, {}).where
    columns = [
        canonical(name, [(part, table.column(name)) for part, table in tables.items()], where, problems, files.shown)
        for name in names
    ]
    columns += _partitions([(part.name, part.rows) for part in parts], names, where, problems)
    problems.check()
    return Table(files.shown, tuple(columns), parts, {}, tuple(left_out))
