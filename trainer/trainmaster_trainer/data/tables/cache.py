"""Tables larger than memory: read a part at a time into Arrow files, which are mapped into memory as the table.

First the source is written as it is (`Raw`): text as text. Then types are decided over whole columns, by the rules of
tables in memory. Then the columns are written in their types, and `DONE` at last. What a process that was killed has
written is used by the next.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
from trainmaster_api.layout import Fingerprint
from trainmaster_api.spec.data import Data
from trainmaster_api.types import parse_quantity

from trainmaster_trainer.data.cache_folder import cache_folder, temporary
from trainmaster_trainer.data.entries import DONE, SAID, Entry, Folder, once, size_text
from trainmaster_trainer.data.files import Files, Found
from trainmaster_trainer.data.fingerprint import of_table
from trainmaster_trainer.errors import DataError
from trainmaster_trainer.memory import available_memory

from .arrow_files import SEGMENT, ArrowWriter, mapped, read_ahead
from .decided import Draft
from .join import join
from .raw import Raw, segment
from .read import files_left_out, nested_columns, read_table, table_files
from .table import Column, ColumnType, LeftOut, Part, Table

VERSION = 1
"""Of the files; an entry of another version isn't used."""
SHARE = 0.5
"""Of the available memory; a table that is larger is cached, with `mode: auto`."""
GROWTH = {"csv": 3.0, "tsv": 3.0, "jsonl": 3.0, "parquet": 4.0}
"""Bytes in memory for a byte of a file; text that is compressed has PACKED times as many."""
PACKED = 4.0
IMAGES = 1.0
"""Instead, for files whose columns are images: they are compressed already."""
TABLES = "tables"
SIZE, TEMPORARY_SIZE = "100Gi", "15Gi"
"""What a folder may take by default, and the folder for temporary files, which in a pod has 20Gi for everything."""

_SAY_SECONDS = 2.0
Say = Callable[[str], None]


@dataclass
class Progress:
    """Says how far something is, not too often.

    Attributes:
        say: Takes the sentence.
        what: What is being done.
        note: File for the processes that wait.
        amount: Puts the total into words; default: as bytes.
    """

    say: Say
    what: str
    note: Path | None = None
    amount: Callable[[float], str] = size_text
    _said: float = field(default_factory=time.monotonic)

    def at(self, done: float, total: float) -> None:
        """Say the share, if the last sentence is old enough."""
        if time.monotonic() - self._said < _SAY_SECONDS:
            return
        self._said = time.monotonic()
        share = min(1.0, done / total) if total else 1.0
        bar = "#" * int(20 * share)
        words = f"{self.what} [{bar:<20}] {share:.0%} of {self.amount(total)}"
        if self.note is not None:
            self.note.write_text(words)
        self.say(words)


@dataclass(frozen=True)
class CachedTable:
    """A table whose columns are mapped from the files of a cache.

    Attributes:
        table: The table.
        entry: Keeps the files as long as it is there; what is made of the table is written to it.
        say: Takes sentences on what is being done.
        others: Entries of further sources, where the table has the rows of several.
    """

    table: Table
    entry: Entry
    say: Say
    others: tuple[Entry, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    def file(self, name: str, ending: str, size: int, write: Callable[[Path], None]) -> Path:
        """Return a file made of the table; one process makes it.

        Args:
            name: Stands for what it is made of.
            ending: What its name ends in.
            size: Most bytes that it has.
            write: Writes the file, or the rest of it where a process was killed that wrote it.
        """
        if self.others:
            name += f"-{_hash([other.path.name for other in self.others])[:16]}"
        path, folder = self.entry.path / f"{name}{ending}", self.entry.folder
        part = path.with_suffix(".partial")

        def build() -> None:
            there = part.stat().st_size if part.exists() else 0
            folder.make_room(self.entry.path, size - there)
            with folder.full_disk(part):
                write(part)
            part.rename(path)

        once(
            path.with_suffix(".lock"), path, build,
            lambda: self.say(f"waiting for another process that encodes {folder.shown}"),
        )  # fmt: skip
        return path

    @property
    def note(self) -> str:
        """What the user is told."""
        sizes = {entry.path: entry.size for entry in (self.entry, *self.others)}
        return f"cached in {self.entry.folder.root} ({size_text(sum(sizes.values()))}), mapped into memory"


def table_folder(data: Data, env: Mapping[str, str]) -> Path:
    """Return the folder of the entries: one of its own, because what is in it is evicted."""
    base = cache_folder(env) if data.cache.directory is None else Path(data.cache.directory)
    return base / TABLES


def cache_size(data: Data, root: Path) -> int:
    """Return the bytes that the cache in a folder may take."""
    default = TEMPORARY_SIZE if root.is_relative_to(temporary()) else SIZE
    return int(parse_quantity(data.cache.size or default))


def open_table(files: Files, data: Data, env: Mapping[str, str], say: Say = lambda _: None) -> Table | CachedTable:
    """Return the rows of a source: in memory, or mapped from the cache if they are too many.

    Args:
        files: Its files.
        data: `spec.training.data`.
        env: Environment, for the folder of the cache and the number of ranks on this node.
        say: Takes sentences on what is being done.

    Raises:
        DataError: Something can't be read, or the cache has no room for it.
    """
    return open_tables({"source": (files, data)}, env, say)[0]


def open_tables(
    sources: Mapping[str, tuple[Files, Data]], env: Mapping[str, str], say: Say = lambda _: None
) -> tuple[Table | CachedTable, dict[str, int]]:
    """Return the rows of several sources as one table, and how many rows each of them has.

    Args:
        sources: Files and `spec.training.data` of each, by the field that names it: `source` first.
        env: As for `open_table`.
        say: As for `open_table`.

    Raises:
        DataError: As `open_table`; or the sources don't go together.
    """
    if not _is_cached(list(sources.values()), env):
        read = {field: read_table(files, data) for field, (files, data) in sources.items()}
        return join(read), {field: len(table) for field, table in read.items()}
    cached = {
        field: cached_table(files, data, table_folder(data, env), say) for field, (files, data) in sources.items()
    }
    return _joined(cached), {field: len(table) for field, table in cached.items()}


def _is_cached(sources: Sequence[tuple[Files, Data]], env: Mapping[str, str]) -> bool:
    data = sources[0][1]
    if data.cache.mode != "auto":
        return data.cache.mode == "always"
    ranks = max(1, int(env.get("LOCAL_WORLD_SIZE", "1")))
    return sum(_size_in_memory(files, each) for files, each in sources) > SHARE * available_memory() / ranks


def _size_in_memory(files: Files, data: Data) -> float:
    kind, found = table_files(files, data)
    return sum(
        bytes_
        * (IMAGES if data.image_column else GROWTH[kind])
        * (PACKED if name.lower().endswith((".gz", ".zst")) else 1)
        for name, bytes_ in zip(found.names, files.sizes(found.names), strict=True)
    )


def _joined(tables: dict[str, CachedTable]) -> CachedTable:
    """Return the rows of several sources as one table; values that change their type are written to the cache."""
    first, *others = tables.values()
    if not others:
        return first

    def cast(field: str, piece: Column, target: pa.DataType) -> list[pa.Array]:
        entry = tables[field].entry
        at = tables[field].table.names.index(piece.name)
        path = entry.path / f"column-{at}-{_hash([str(target)])[:16]}.arrow"

        def build() -> None:
            entry.folder.make_room(entry.path, 8 * len(piece.values) + piece.values.nbytes)
            with entry.folder.full_disk(path), ArrowWriter(path) as writer:
                for chunk in piece.values.chunks:
                    writer.write(pa.record_batch([chunk.cast(target, safe=False)], ["0"]))

        once(
            path.with_suffix(".lock"), path, build,
            lambda: first.say(f"waiting for another process that converts {piece.name} of {entry.folder.shown}"),
        )  # fmt: skip
        return [batch.column(0) for batch in mapped(path)]

    whole = join({field: each.table for field, each in tables.items()}, cast)
    return CachedTable(whole, first.entry, first.say, tuple(each.entry for each in others))


def cached_table(files: Files, data: Data, root: Path, say: Say = lambda _: None) -> CachedTable:
    """Return the rows of a source, mapped from the cache, which is built first where it isn't there.

    Args:
        files: Its files.
        data: `spec.training.data`.
        root: Folder of the cache.
        say: Takes sentences on what is being done.

    Raises:
        DataError: As `read_table`; or the cache has no room.
    """
    _, found = table_files(files, data)
    print_ = of_table(files, found.names)
    folder = Folder(root, cache_size(data, root), say, files.shown)
    entry = folder.entry(_key(files, found, data, print_.digest), partial(_build, folder, files, found, data, print_))
    table = _load(entry.path, files.shown, files_left_out(found))
    return CachedTable(table, entry, say)


def _key(files: Files, found: Found, data: Data, digest: str) -> str:
    """Return what stands for the content and the way in which it is read."""
    more: tuple[Any, ...] = ()
    if data.table_format in ("csv", "tsv"):
        more = (data.csv.wire(), data.nulls, data.target)
    elif data.table_format == "jsonl":
        more = (sorted(nested_columns(data)),)
    shown = [VERSION, pa.__version__, digest, files.store.uri, found.root, data.table_format, *more]
    return _hash(shown)[:32]


def _hash(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _build(folder: Folder, files: Files, found: Found, data: Data, print_: Fingerprint, path: Path) -> None:
    raw = Raw(folder, files, found, data, path, Progress(folder.say, f"reading {files.shown}", path / SAID))
    draft, batches = raw.read()
    _write(folder, draft, batches, path, Progress(folder.say, f"writing {files.shown} to the cache", path / SAID))
    for each in print_.files:
        stat = files.store.stat(each.path)
        if stat is None or (stat.size, stat.version) != (each.size, each.version):
            raise DataError(
                f"{files.shown}: {each.path} has changed while it was read; start again when it is complete"
            )
    raw.remove()
    for left in (*path.glob("*.tmp"), path / SAID):
        left.unlink(missing_ok=True)
    done = path / f"{DONE}.tmp"
    done.write_text(json.dumps(_described(draft, len(files_left_out(found)))))
    done.rename(path / DONE)


def _write(folder: Folder, draft: Draft, batches: list[pa.RecordBatch], path: Path, progress: Progress) -> None:
    """Write the columns in their types, into files of about SEGMENT bytes; those that are there stay."""
    sizes = [batch.nbytes for batch in batches]
    edges, size = [0], 0
    for index, each in enumerate(sizes):
        size += each
        if size >= SEGMENT or index == len(sizes) - 1:
            edges.append(index + 1)
            size = 0
    for number, (start, end) in enumerate(pairwise(edges)):
        target = path / f"rows-{number:05d}.arrow"
        if not target.exists():
            folder.make_room(path, sum(sizes[start:end]))
            read_ahead(segment(path, number))  # has the batches of this file, or most of them
            with ArrowWriter(target) as writer:
                for index in range(start, end):
                    arrays = [column.convert(index) for column in draft.columns]
                    writer.write(pa.record_batch(arrays, [str(each) for each in range(len(arrays))]))
                    progress.at(sum(sizes[: index + 1]), sum(sizes))


def _described(draft: Draft, foreign: int) -> dict[str, object]:
    """Return what isn't in the Arrow files; of what is left out, the files that aren't read are listed each time."""
    return {
        "columns": [{"name": each.name, "type": each.type, "notes": each.notes} for each in draft.columns],
        "parts": [asdict(part) for part in draft.parts],
        "dialect": draft.dialect,
        "leftOut": [asdict(each) for each in draft.left_out[foreign:]],
    }


def _load(path: Path, shown: str, left_out: list[LeftOut]) -> Table:
    said = json.loads((path / DONE).read_text())
    whole = pa.Table.from_batches([batch for file in sorted(path.glob("rows-*.arrow")) for batch in mapped(file)])
    columns = tuple(
        Column(each["name"], ColumnType(each["type"]), whole.column(index), tuple(each["notes"]))
        for index, each in enumerate(said["columns"])
    )
    parts = tuple(Part(**part) for part in said["parts"])
    own = [LeftOut(**each) for each in said["leftOut"]]
    return replace(Table(shown, columns, parts, said["dialect"]), left_out=(*left_out, *own))
