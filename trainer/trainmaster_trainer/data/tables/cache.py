"""Tables larger than memory: read a part at a time into Arrow files, which are mapped into memory as the table.

First the source is written as it is (`Raw`): text as text. Then types are decided over whole columns, by the rules of
tables in memory. Then the columns are written in their types, and `DONE` at last. What a process that was killed has
written is used by the next.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

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

from .arrow_files import SEGMENT, ArrowWriter, mapped
from .decided import Draft
from .raw import Raw
from .read import files_left_out, read_table, table_files
from .table import Column, ColumnType, LeftOut, Part, Table

VERSION = 1
"""Of the files; an entry of another version isn't used."""
SHARE = 0.5
"""Of the available memory; a table that is larger is cached, with `mode: auto`."""
GROWTH = {"csv": 3.0, "tsv": 3.0, "parquet": 4.0}
"""Bytes in memory for a byte of a file; text that is compressed has PACKED times as many."""
PACKED = 4.0
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
    """

    say: Say
    what: str
    note: Path | None = None
    _said: float = field(default_factory=time.monotonic)

    def at(self, done: float, total: float) -> None:
        """Say the share, if the last sentence is old enough."""
        if time.monotonic() - self._said < _SAY_SECONDS:
            return
        self._said = time.monotonic()
        share = min(1.0, done / total) if total else 1.0
        bar = "#" * int(20 * share)
        words = f"{self.what} [{bar:<20}] {share:.0%} of {size_text(total)}"
        if self.note is not None:
            self.note.write_text(words)
        self.say(words)


@dataclass(frozen=True)
class CachedTable:
    """A table whose columns are mapped from the files of a cache.

    Attributes:
        table: The table.
        entry: Keeps the files as long as it is there.
        say: Takes sentences on what is being done.
    """

    table: Table
    entry: Entry
    say: Say

    def file(self, name: str, rows: int, width: int, write: Callable[[Path], None]) -> Path:
        """Return a file of float32 numbers made of the table; one process makes it.

        Args:
            name: Stands for what it is made of.
            rows: Number of rows.
            width: Of numbers in each.
            write: Writes the file.
        """
        path, folder = self.entry.path / f"{name}.f32", self.entry.folder
        part = path.with_suffix(".partial")

        def build() -> None:
            there = part.stat().st_size if part.exists() else 0
            folder.make_room(self.entry.path, rows * width * 4 - there)
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
        return f"cached in {self.entry.folder.root} ({size_text(self.entry.size)}), mapped into memory"


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
    if not _is_cached(files, data, env):
        return read_table(files, data)
    return cached_table(files, data, table_folder(data, env), say)


def _is_cached(files: Files, data: Data, env: Mapping[str, str]) -> bool:
    if data.not_cached is not None:
        return False
    if data.cache.mode != "auto":
        return data.cache.mode == "always"
    kind, found = table_files(files, data)
    size = sum(
        bytes_ * GROWTH[kind] * (PACKED if name.lower().endswith((".gz", ".zst")) else 1)
        for name, bytes_ in zip(found.names, files.sizes(found.names), strict=True)
    )
    ranks = max(1, int(env.get("LOCAL_WORLD_SIZE", "1")))
    return size > SHARE * available_memory() / ranks


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
    text = (data.csv.wire(), data.nulls, data.target) if data.table_format != "parquet" else ()
    shown = [VERSION, pa.__version__, digest, files.store.uri, found.root, data.table_format, *text]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:32]


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
