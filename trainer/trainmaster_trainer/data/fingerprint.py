"""Identity of the data: the fingerprint of a source's files.

Imports no framework, so that `trainmaster run` can compare a finished run's data without starting anything. The rule
is in docs/data.md, "Identity of the data".
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from trainmaster_api.layout import DataFile, Fingerprint, Lines
from trainmaster_api.spec.data import TABLE_ENDINGS, Data
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.storage import Storage

from trainmaster_trainer.errors import StorageUnavailable
from trainmaster_trainer.storage.store import Stat, Store

from .differences import by_field, is_same
from .files import IMAGE_ENDINGS, Files, is_hidden
from .images.errors import UnreadableError

if TYPE_CHECKING:  # which imports pyarrow and Pillow
    from .images.column import Place

HASHED_BYTES = 64 * 2**20  # of one file
HASHED_BYTES_TOTAL = 2**30  # of all files whose content is hashed
HASHED_FILES = 10_000
LISTED_FILES = 100_000
BLOCKS = 256  # of lines in a text file: with fewer lines each is a block, so a change is named by its line

_SMALL = 4 * 2**20  # files up to this size are read by several threads at once
_THREADS = 16
_TEXT = (".csv", ".tsv", ".txt", ".jsonl")


def take(job: TrainingJob, base_dir: Path, env: Mapping[str, str], known: Fingerprint | None = None) -> Fingerprint:
    """Return the fingerprint of a job's data as it is now.

    Args:
        job: The resolved job.
        base_dir: What relative paths are relative to.
        env: Environment with the S3 keys.
        known: What to compare it with: the content of the same files is hashed, and an object on S3 whose ETag is the
            same isn't read again.

    Returns:
        Without a digest for data that only a class or another package can identify.

    Raises:
        DataError: There is no such source.
    """
    data, storage = job.spec.training.data, job.spec.storage
    if not data.own_sources:
        return _of_source("source", data, storage, base_dir, env, known)
    before = by_field(known) if known else {}
    found = {
        field: _of_source(field, data.of_source(source), storage, base_dir, env, before.get(field))
        for field, source in {"source": data.label, **data.own_sources}.items()
    }
    digests = "".join(f"{field} {each.digest}\n" for field, each in found.items())
    return Fingerprint(
        source=", ".join(each.source for each in found.values()),
        digest=hashlib.sha256(digests.encode()).hexdigest() if all(each.digest for each in found.values()) else "",
        count=sum(each.count for each in found.values()),
        size=sum(each.size for each in found.values()),
        sources=found,
    )


def _of_source(
    field: str, data: Data, storage: Storage, base_dir: Path, env: Mapping[str, str], known: Fingerprint | None
) -> Fingerprint:
    """Return the fingerprint of one source.

    Args:
        field: The field that it is of.
        data: `spec.training.data`, with this source as `source`.
        storage: `spec.storage`.
        base_dir: What relative paths are relative to.
        env: Environment with the S3 keys.
        known: What to compare it with.
    """
    source = data.source
    if source is None:
        return Fingerprint(source=data.label)
    kind, _, name = source.partition(":")
    if kind == "sklearn":
        return of_value(source, f"scikit-learn {version('scikit-learn')}, {name}")
    is_images = kind == "images"
    if not is_images and not data.is_table:  # a source of another package
        return Fingerprint(source=source)
    if is_images:
        files = Files.open(name, storage, base_dir, env, field=field)
        return _of_files(source, files.store, objects(files, IMAGE_ENDINGS), known)
    files = Files.open(source, storage, base_dir, env, is_table=True, field=field)
    start = f".{data.table_format}"
    names = files.table(tuple(ending for ending in TABLE_ENDINGS if ending.startswith(start))).names
    table = of_table(files, names, known)
    if data.image_column is None:
        return table
    return _with_images(table, files, data, storage, base_dir, env, known)


def of_value(source: str, value: str) -> Fingerprint:
    """Return the fingerprint of data that is identified by a word and not by files."""
    return Fingerprint(source=source, value=value, digest=hashlib.sha256(value.encode()).hexdigest())


def of_table(files: Files, names: Sequence[str], known: Fingerprint | None = None) -> Fingerprint:
    """Return the fingerprint of the files of a table.

    Args:
        files: The source's.
        names: Those that are read.
        known: As for `take`.
    """
    found = [stat for stat in map(files.store.stat, names) if stat is not None]
    return _of_files(files.shown, files.store, found, known)


def objects(files: Files, endings: tuple[str, ...] = ()) -> list[Stat]:
    """Return the objects that a source reads.

    Args:
        files: The source's.
        endings: What the files of a folder must end in; none: anything.
    """
    if files.name:
        one = files.store.stat(files.name)
        return [Stat(files.name, one.size, one.version)] if one else []
    try:
        found = files.store.stat_all()
    except StorageUnavailable:
        from .images.disk import surroundings

        surroundings(files)  # says what links there are that make this impossible
        raise
    return [each for each in found if not is_hidden(each.path) and (not endings or each.path.lower().endswith(endings))]


# -- images that a table names ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Named:
    """The images of a column, by the paths that are written there."""

    place: Place
    is_s3: bool

    def get(self, cell: str) -> bytes | None:
        with contextlib.suppress(UnreadableError):
            return self.place.read(cell)
        return None

    def stats(self, cells: list[str]) -> list[Stat]:
        """Return those that are there; reading the table names the others."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="fingerprint") as threads:
            return [found for found in threads.map(self._stat, cells) if found is not None]

    def _stat(self, cell: str) -> Stat | None:
        with contextlib.suppress(UnreadableError, OSError):
            path = self.place.path(cell)
            if self.is_s3:
                found = self.place.files.store.stat(path)
                return None if found is None else Stat(cell, found.size, found.version)
            status = (self.place.files.store.root / path).stat()
            return Stat(cell, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC).isoformat())
        return None


def _with_images(
    table: Fingerprint,
    files: Files,
    data: Data,
    storage: Storage,
    base_dir: Path,
    env: Mapping[str, str],
    known: Fingerprint | None,
) -> Fingerprint:
    """Return the fingerprint of a table and of the images that it names; those in the table itself are part of it."""
    from .images.column import Place, image_cells
    from .tables.cache import CachedTable, open_table
    from .tables.table import ColumnType

    opened = open_table(files, data, env)
    cells = image_cells(opened.table if isinstance(opened, CachedTable) else opened, str(data.image_column))
    if cells is None or cells.type is not ColumnType.TEXT:
        return table
    place = Place.of(files, data, storage, base_dir, env)
    named = _Named(place, place.files.store.is_s3)
    paths = sorted(path for path in cells.values.unique().to_pylist() if path)
    images = _of_files(table.source, named, named.stats(paths), known)
    listed = [*table.files, *images.files]
    return Fingerprint(
        source=table.source,
        digest=hashlib.sha256(f"{table.digest} {images.digest}".encode()).hexdigest(),
        count=table.count + images.count,
        size=table.size + images.size,
        files=listed if len(listed) == table.count + images.count <= LISTED_FILES else [],
    )


# -- the files --------------------------------------------------------------------------------------------------------
def _of_files(source: str, store: Store | _Named, found: list[Stat], known: Fingerprint | None) -> Fingerprint:
    old = {file.path: file for file in known.files} if known else {}
    # one whose ETag is the same isn't read again; the time of a file on disk can be kept by what replaces it
    unread = {
        each.path: old[each.path]
        for each in found
        if store.is_s3
        and each.path in old
        and (old[each.path].size, old[each.path].version) == (each.size, each.version)
    }
    hashed = _hashed(found, old) - set(unread)
    small = [each for each in found if each.path in hashed and each.size <= _SMALL]
    read: dict[str, DataFile] = {}
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="fingerprint") as threads:
        read |= {file.path: file for file in threads.map(lambda each: _read(store, each, old.get(each.path)), small)}
    for each in found:  # one after the other: two large ones in memory at once may be one too many
        if each.path in hashed and each.path not in read:
            read[each.path] = _read(store, each, old.get(each.path))
    files = [
        unread.get(each.path)
        or read.get(each.path)
        or DataFile(path=each.path, size=each.size, version=each.version)
        for each in found
    ]  # fmt: skip
    return Fingerprint(
        source=source,
        digest=_digest(files, old),
        count=len(files),
        size=sum(file.size for file in files),
        files=files if len(files) <= LISTED_FILES else [],
    )


def _hashed(found: list[Stat], old: Mapping[str, DataFile]) -> set[str]:
    """Return the files whose content is hashed: the same as before, and those that may be a renamed one."""
    if old:
        there = {each.path for each in found}
        gone = {file.size for path, file in old.items() if file.sha256 and path not in there}
        candidates = [
            each
            for each in found
            if (old[each.path].sha256 is not None if each.path in old else each.size in gone)
        ]  # fmt: skip
        return {each.path for each in candidates if each.size <= HASHED_BYTES}
    chosen, total = set[str](), 0
    for each in found:
        if each.size > HASHED_BYTES or total + each.size > HASHED_BYTES_TOTAL or len(chosen) == HASHED_FILES:
            continue
        chosen.add(each.path)
        total += each.size
    return chosen


def _read(store: Store | _Named, stat: Stat, old: DataFile | None) -> DataFile:
    content = store.get(stat.path)
    if content is None:  # deleted since it was listed: the comparison says that it is gone, or reading says it
        return DataFile(path=stat.path, size=0, version="gone")
    ending = Path(stat.path).suffix.lower()
    return DataFile(
        path=stat.path,
        size=len(content),
        version=stat.version,
        sha256=hashlib.sha256(content).hexdigest(),
        lines=_lines(content, old.lines.per_block if old and old.lines else None) if ending in _TEXT else None,
        rows=_parquet_rows(content) if ending == ".parquet" else None,
    )


def _lines(content: bytes, per_block: int | None) -> Lines:
    import numpy as np

    ends = np.flatnonzero(np.frombuffer(content, dtype=np.uint8) == ord("\n")) + 1
    if content and not content.endswith(b"\n"):
        ends = np.append(ends, len(content))
    size = per_block or max(1, -(-len(ends) // BLOCKS))
    edges = [0, *ends[size - 1 :: size].tolist()]
    if content and edges[-1] != len(content):
        edges.append(len(content))
    blocks = [
        hashlib.sha256(content[start:end].rstrip(b"\r\n")).hexdigest()[:12] for start, end in itertools.pairwise(edges)
    ]
    return Lines(count=len(ends), per_block=size, blocks=blocks)


def _parquet_rows(content: bytes) -> int | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with contextlib.suppress(pa.ArrowException, OSError):  # broken: reading the table says how
        return int(pq.read_metadata(pa.BufferReader(content)).num_rows)
    return None


def _digest(files: Iterable[DataFile], old: Mapping[str, DataFile]) -> str:
    """Return the checksum over all files, as it was before where they are the same."""
    digest = hashlib.sha256()
    for file in files:
        before = old.get(file.path)
        it = before if before is not None and is_same(before, file) else file
        digest.update(f"{len(it.path)}:{it.path} {it.size} {it.sha256 or it.version}\n".encode())
    return digest.hexdigest()
