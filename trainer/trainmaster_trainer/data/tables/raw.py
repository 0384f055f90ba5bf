"""A source as it is, in Arrow files: what is read a part at a time, and what types are then decided over."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from trainmaster_api.spec.data import Data

from trainmaster_trainer.data.entries import Folder
from trainmaster_trainer.data.files import Files, Found

from .arrow_files import SEGMENT, ArrowWriter, mapped
from .decided import Draft
from .dialect import Dialect
from .jsonl import JsonCursor, JsonReader, Piece
from .problems import ReadProblems
from .read import draft_jsonl, draft_parquet, draft_text, files_left_out, parquet_error, table_files
from .table import LeftOut
from .text import Cursor, TextReader

if TYPE_CHECKING:
    from .cache import Progress

TEXT_BLOCK = 2 << 20
"""Bytes of text that are looked at together; what is made of them on the way takes some twenty times as much."""
BATCH = 8 << 20
"""Bytes of a record batch: what is converted together."""
FEWEST_ROWS, MOST_ROWS = 16, 128 << 10
_STATE = "raw.json"
_JSON_TYPES = {str(each): each for each in (pa.bool_(), pa.int64(), pa.float64(), pa.large_string(), pa.null())}


class Raw:
    """The files of a source on their way into the cache. What another process has written is used."""

    def __init__(self, folder: Folder, files: Files, found: Found, data: Data, path: Path, progress: Progress) -> None:
        """Look at what is there.

        Args:
            folder: Of the cache.
            files: The source's.
            found: Those that are read.
            data: `spec.training.data`.
            path: Of the entry.
            progress: Says how far it is.
        """
        self._folder, self._files, self._found, self._data = folder, files, found, data
        self._path, self._progress = path, progress
        self._state: dict[str, Any] = {"segments": 0, "dialect": None, "parts": []}
        if (path / _STATE).exists():
            self._state = json.loads((path / _STATE).read_text())
        self._parts: list[dict[str, Any]] = self._state["parts"]
        self._writer: ArrowWriter | None = None
        self._schema: pa.Schema | None = None
        self._sizes = files.sizes(found.names)

    def read(self) -> tuple[Draft, list[pa.RecordBatch]]:
        """Return what becomes of the source, and its batches; those of a column have its values in the same order.

        Raises:
            DataError: As `read_table`.
        """
        kind, _ = table_files(self._files, self._data)
        left_out, total = files_left_out(self._found), sum(self._sizes)
        deciding = replace(self._progress, what=f"deciding the types of {self._files.shown}")

        def at(share: float) -> None:
            deciding.at(share * total, total)

        if kind == "parquet":
            for number, name in enumerate(self._found.names):
                self._read_parquet(number, name)
            self._commit()
            batches = self._batches()
            by_name = zip(self._inner_names(), self._tables(batches), strict=True)
            whole = {name: pa.concat_tables(tables) for name, tables in by_name}
            return draft_parquet(self._files.shown, whole, left_out, at), batches
        if kind == "jsonl":
            return self._json(left_out, at)
        reader = TextReader(self._files.shown, self._data, kind, ReadProblems(self._files.shown))
        if self._state["dialect"] is not None:
            words = self._state["dialect"]
            reader.dialect = Dialect(
                words["delimiter"], words["quote"], tuple(words["nulls"]), tuple(words["target_nulls"])
            )
        for number, name in enumerate(self._found.names):
            self._read_text(reader, number, name)
        self._commit()
        batches = [] if reader.problems.count else self._batches()
        cursors = [Cursor(**part["cursor"]) for part in self._parts]
        tables = [[]] * len(cursors) if reader.problems.count else self._tables(batches)
        names = zip(self._found.names, self._inner_names(), strict=True)
        parts = {
            name: cursor.part(inner, table) for (name, inner), cursor, table in zip(names, cursors, tables, strict=True)
        }
        return draft_text(reader, parts, left_out, keep=False, at=at), batches

    def remove(self) -> None:
        """Remove the files."""
        for file in (*self._path.glob("raw-*.arrow"), self._path / _STATE):
            file.unlink(missing_ok=True)

    def _inner_names(self) -> list[str]:
        return [name[self._found.root :] for name in self._found.names]

    # -- reading ------------------------------------------------------------------------------------------------------
    def _part(self, number: int, **new: Any) -> dict[str, Any]:
        """Return what is known of a file."""
        if number == len(self._parts):
            self._parts.append({"batches": 0, "done": False, **new})
        return self._parts[number]

    def _read_text(self, reader: TextReader, number: int, name: str) -> None:
        part = self._part(number, cursor=asdict(Cursor()))
        if part["done"]:
            return
        at = Cursor(**part["cursor"])
        opened: IO[bytes] | None = None

        def open_at(start: int) -> IO[bytes]:
            nonlocal opened
            opened = self._files.open_at(name, start, ahead=TEXT_BLOCK)
            return opened

        inner = name[self._found.root :]
        pending: list[pa.Table] = []
        is_one_of_many = len(self._found.names) > 1
        for table in reader.stream(inner, open_at, at, is_one_of_many=is_one_of_many, size=TEXT_BLOCK):
            pending.append(table)
            if sum(each.nbytes for each in pending) >= BATCH:
                self._state["dialect"] = _dialect_of(reader)
                self._append(part, pa.concat_tables(pending), cursor=asdict(at))
                pending = []
            done = self._sizes[number] if opened is None or opened.closed else opened.tell()
            self._progress.at(sum(self._sizes[:number]) + done, sum(self._sizes))
        self._state["dialect"] = _dialect_of(reader)
        if reader.problems.count:  # they are reported when all files have been read, and none of it is used
            part["cursor"] = asdict(at)
            self._abandon()
        elif pending:
            self._append(part, pa.concat_tables(pending), cursor=asdict(at), done=True)
        else:
            part.update(cursor=asdict(at), done=True)

    def _json(self, left_out: list[LeftOut], at: Callable[[float], None]) -> tuple[Draft, list[pa.RecordBatch]]:
        reader = JsonReader(self._files.shown, ReadProblems(self._files.shown))
        for number, name in enumerate(self._found.names):
            self._read_json(reader, number, name)
        self._commit()
        batches = [] if reader.problems.count else self._batches()
        keys, rest = list(self._state.get("keys", {})), iter(batches)
        read = {}
        for name, part in zip(self._inner_names(), self._parts, strict=True):
            blocks = [
                (rows, {keys[index]: Piece.read(batch.column(index), wire) for index, wire in columns})
                for (rows, columns), batch in zip(part["blocks"], rest, strict=False)  # the blocks of a file end first
                if not reader.problems.count
            ]
            read[name] = JsonCursor(**part["cursor"]), blocks
        return draft_jsonl(reader, read, self._data, left_out, keep=False, at=at), batches

    def _read_json(self, reader: JsonReader, number: int, name: str) -> None:
        part = self._part(number, cursor=asdict(JsonCursor()), blocks=[])
        at = JsonCursor(**part["cursor"])
        if part["done"]:
            reader.rows += at.rows
            return
        opened: IO[bytes] | None = None

        def open_at(start: int) -> IO[bytes]:
            nonlocal opened
            opened = self._files.open_at(name, start, ahead=TEXT_BLOCK)
            return opened

        is_one_of_many = len(self._found.names) > 1
        inner = name[self._found.root :]
        for block in reader.stream(inner, open_at, at, is_one_of_many=is_one_of_many, size=TEXT_BLOCK):
            if not reader.problems.count:
                table, described = self._json_table(*block)
                self._append(part, table, described, cursor=asdict(at))
            done = self._sizes[number] if opened is None or opened.closed else opened.tell()
            self._progress.at(sum(self._sizes[:number]) + done, sum(self._sizes))
        if reader.problems.count:  # as for text
            self._abandon()
        part.update(cursor=asdict(at), done=True)

    def _json_table(self, rows: int, pieces: dict[str, Piece]) -> tuple[pa.Table, list[Any]]:
        """Return a block as it is stored, and what isn't in its values.

        All keys that are known are columns, in the type that was seen last: with another schema, another file begins.
        """
        known: dict[str, str] = self._state.setdefault("keys", {})
        for key, piece in pieces.items():
            if piece.first or key not in known:
                known[key] = str(piece.values.type)
        arrays = [
            pieces[key].values if key in pieces and pieces[key].first else pa.nulls(rows, _JSON_TYPES[kind])
            for key, kind in known.items()
        ]
        numbers = {key: index for index, key in enumerate(known)}
        described = [rows, [[numbers[key], piece.wire()] for key, piece in pieces.items()]]
        return pa.table(arrays, [str(index) for index in range(len(arrays))]), described

    def _read_parquet(self, number: int, name: str) -> None:
        part = self._part(number, groups=0, inside=0)
        if part["done"]:
            return
        for table, group, inside, groups in self._parquet(name, part["groups"], part["inside"]):
            self._append(part, table, groups=group, inside=inside)
            done = sum(self._sizes[:number]) + self._sizes[number] * group / max(1, groups)
            self._progress.at(done, sum(self._sizes))
        part["done"] = True

    def _parquet(self, name: str, first: int, inside: int) -> Iterator[tuple[pa.Table, int, int, int]]:
        """Yield the rows of a Parquet file, some at a time, each with what has been read with it.

        Args:
            name: Of the file.
            first: Row groups that have been read.
            inside: Batches that have been read of the next one.

        Yields:
            Rows, the number of row groups and of batches behind them that are read with these, and the number of row
            groups. First no rows: an empty file has columns too.
        """
        is_s3 = self._files.store.is_s3
        try:
            # on disk it is mapped; on S3 a row group is a few ranges
            source = pa.PythonFile(self._files.open_at(name), mode="r") if is_s3 else str(self._files.store.root / name)
            with pq.ParquetFile(source, memory_map=not is_s3, pre_buffer=is_s3) as file:
                groups, rows = file.num_row_groups, _rows_of(file.metadata)
                if not first and not inside:
                    yield _decoded(file.schema_arrow.empty_table()), 0, 0, groups
                for group in range(first, groups):
                    for number, batch in enumerate(file.iter_batches(batch_size=rows, row_groups=[group])):
                        if group > first or number >= inside:
                            yield _decoded(pa.table(batch)), group, number + 1, groups
        except (pa.ArrowException, OSError) as error:
            raise parquet_error(self._files, self._found, name[self._found.root :], error) from None

    # -- writing ------------------------------------------------------------------------------------------------------
    def _append(self, part: dict[str, Any], table: pa.Table, described: Any = None, **state: Any) -> None:
        """Write rows of a file, and what is known of it with them; `described` is what isn't in the rows."""
        if self._schema is not None and table.schema != self._schema:
            self._commit()
        batch = _one_batch(table)
        if self._writer is None:
            self._folder.make_room(self._path, max(SEGMENT, batch.nbytes))
            self._schema = table.schema
            self._writer = ArrowWriter(self._segment(self._state["segments"]))
        self._writer.write(batch)
        part.update(state, batches=part["batches"] + 1)
        if described is not None:
            part["blocks"].append(described)
        if self._writer.size >= SEGMENT:
            self._commit()

    def _commit(self) -> None:
        """Finish the file in work: what has been read so far isn't read again."""
        if self._writer is None:
            return
        self._writer.finish()
        self._writer, self._schema = None, None
        self._state["segments"] += 1
        new = self._path / f"{_STATE}.tmp"
        new.write_text(json.dumps(self._state))
        new.rename(self._path / _STATE)
        pa.default_memory_pool().release_unused()

    def _abandon(self) -> None:
        if self._writer is not None:
            self._writer.abandon()
        self._writer, self._schema = None, None

    def _segment(self, number: int) -> Path:
        return segment(self._path, number)

    # -- what was written ---------------------------------------------------------------------------------------------
    def _batches(self) -> list[pa.RecordBatch]:
        return [batch for number in range(self._state["segments"]) for batch in mapped(self._segment(number))]

    def _tables(self, batches: list[pa.RecordBatch]) -> list[list[pa.Table]]:
        """Return the rows of each file."""
        found, start = [], 0
        for part in self._parts:
            own = batches[start : start + part["batches"]]
            start += len(own)
            found.append([pa.Table.from_batches(own)] if own else [])
        return found


def segment(path: Path, number: int) -> Path:
    """Return a file of an entry with rows as they are in the source."""
    return path / f"raw-{number:05d}.arrow"


def _dialect_of(reader: TextReader) -> dict[str, Any] | None:
    return asdict(reader.dialect) if reader.dialect is not None else None


def _rows_of(metadata: pq.FileMetaData) -> int:
    """Return how many rows of a Parquet file are about BATCH bytes."""
    size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    size = max(1, size, 8 * metadata.num_columns * metadata.num_rows)  # of dictionaries is more made than they take
    rows: int = BATCH * metadata.num_rows // size
    return max(FEWEST_ROWS, min(MOST_ROWS, rows))


def _decoded(table: pa.Table) -> pa.Table:
    """Return a table without dictionaries, which a file of ours would have to keep the same for all rows."""
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            values = table.column(index).cast(field.type.value_type)
            table = table.set_column(index, field.name, values)
    return table.replace_schema_metadata(None)


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    arrays = [
        column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks) if column.num_chunks
        else pa.array([], column.type)
        for column in table.columns
    ]  # fmt: skip
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)
