"""Files of a data source: a path on disk or an s3:// address, read by the same store as checkpoints."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote

from trainmaster_api.address import Address, AddressError, parse
from trainmaster_api.spec.data import TABLE_ENDINGS
from trainmaster_api.spec.images import is_archive
from trainmaster_api.spec.storage import Storage

from trainmaster_trainer.errors import DataError
from trainmaster_trainer.storage.store import Store, open_store

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
"""Value of a partition whose column is null, as Hive and Spark write it."""
IMAGE_ENDINGS = (
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
_SYSTEM = frozenset({
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "#recycle", "$recycle.bin", "lost+found",
    "system volume information",
})  # fmt: skip


def is_hidden(name: str) -> bool:
    """Return whether a viewer, a file manager or a disk made a file: `.ipynb_checkpoints/`, `._x.png`, `__MACOSX/`."""
    return any(part.startswith(".") or part.lower() in _SYSTEM for part in name.split("/"))


@dataclass(frozen=True)
class Found:
    """Files of a table.

    Attributes:
        names: Paths below the root, in the order of their names.
        root: Length of the part of each path that the address names: partitions are looked for behind it.
        hidden: Names of hidden files and markers.
        foreign: Names of files of another format.
    """

    names: tuple[str, ...]
    root: int
    hidden: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True)
class Files:
    """A directory that is read from.

    Attributes:
        store: Rooted at the directory (for one file: at its parent).
        name: File's name, empty for a directory; for a table also a folder's name or a pattern.
        shown: The address as the user wrote it.
        field: Where it was written, for messages.
    """

    store: Store
    name: str
    shown: str
    field: str = "source"

    @classmethod
    def open(
        cls,
        address: str,
        storage: Storage,
        base_dir: Path,
        env: Mapping[str, str],
        *,
        is_table: bool = False,
        field: str = "source",
    ) -> Files:
        """Open the files at an address of `data.source`; s3:// uses the endpoint and keys of `spec.storage`.

        Args:
            address: `data.source`, without the name of the source and its colon.
            field: `source`, or the field of a single split's source.
            storage: `spec.storage`.
            base_dir: What relative paths are relative to.
            env: Environment with the S3 keys.
            is_table: Whether it may be a file of any name, a folder of files, or a pattern (`*`, `**`).
        """
        try:  # resolved, because `..` after a symbolic link depends on the file system
            place = parse(address, relative_to=str(base_dir.resolve()))
        except AddressError as error:
            raise DataError(f'data.{field} "{address}" {error}') from None
        file_name = PurePosixPath(place.path).name.lower()
        is_packed = is_archive(file_name) and (place.is_s3 or not Path(place.path).is_dir())
        is_file = is_table or file_name.endswith(TABLE_ENDINGS) or is_packed
        folder, name = (place.parent, place.name) if is_file else (place, "")
        is_there = not place.is_s3 and Path(place.path).exists()
        if is_table and "*" in place.path and not is_there:
            folder, name = _fixed(place)
            is_there = not place.is_s3 and Path(folder.path).exists()
        if place.is_s3:
            return cls(open_store(str(folder), storage.endpoint, storage.region, env), name, address, field)
        if not is_there:
            raise DataError(f"data.{field} {address}: no such {'file' if is_file else 'folder'} ({place})")
        return cls(Store(str(folder)), name, address, field)

    def read(self, name: str | None = None) -> bytes:
        """Return the content of a file; default: the one file of the source.

        Raises:
            DataError: The file doesn't exist.
        """
        path = self.name if name is None else name
        found = self.store.get(path)
        if found is None:
            raise DataError(f"data.{self.field} {self.shown}: no such file: {path}")
        return found

    def open_at(self, name: str, start: int = 0, *, ahead: int = 0) -> IO[bytes]:
        """Return a file opened for reading at a byte; an object on S3 is read in ranges as they are asked for.

        Args:
            name: Of the file.
            start: The byte.
            ahead: Bytes of the smallest range, for what reads from the start to the end.

        Raises:
            DataError: The file doesn't exist.
        """
        if not self.store.is_s3:
            try:
                found = (self.store.root / name).open("rb")
            except FileNotFoundError:
                raise DataError(f"data.{self.field} {self.shown}: no such file: {name}") from None
            found.seek(start)
            return found
        stat = self.store.stat(name)
        if stat is None:
            raise DataError(f"data.{self.field} {self.shown}: no such file: {name}")
        ranges = _Ranges(self.store, name, stat.size)
        ranges.seek(start)
        return io.BufferedReader(ranges, ahead) if ahead else ranges  # type: ignore[return-value]

    def sizes(self, names: Sequence[str]) -> list[int]:
        """Return the bytes of files; 0 for one that is gone. Many are listed together."""
        if len(names) == 1:
            stat = self.store.stat(names[0])
            return [stat.size if stat else 0]
        listed = dict(self.store.list("" if "*" in self.name else self.name))
        return [listed.get(name, 0) for name in names]

    def table(self, endings: tuple[str, ...]) -> Found:
        """Return the files of a table: one file, those of a folder, or those that a pattern matches.

        Args:
            endings: What names of the format end in. A file that the address names itself may have any.

        Raises:
            DataError: There is none, or one whose compression can't be read.
        """
        if "*" in self.name and not (not self.store.is_s3 and (self.store.root / self.name).exists()):
            pattern = _pattern(self.name)
            listed = [path for path, _ in self.store.list() if pattern.match(path)]
            return self._sorted(listed, 0, endings)
        is_folder = self.store.is_s3 or (self.store.root / self.name).is_dir()
        listed = [path for path, _ in self.store.list(self.name)] if is_folder else []
        below = [path for path in listed if path.startswith(f"{self.name}/")] if self.name else listed
        if self.name and not below and not (is_folder and not self.store.is_s3):
            return Found((self.name,), 0)
        return self._sorted(below, len(self.name) + 1 if self.name else 0, endings)

    def _sorted(self, listed: list[str], root: int, endings: tuple[str, ...]) -> Found:
        names, hidden, foreign = [], [], []
        for path in sorted(listed):
            if any(_is_hidden(part) for part in path[root:].split("/")):
                hidden.append(path)
            elif path.lower().endswith(endings):
                names.append(path)
            else:
                foreign.append(path)
        packed = [path for path in foreign if any(f"{ending}." in path.lower() for ending in endings)]
        if packed:
            raise DataError(
                f"data.{self.field} {self.shown}: {packed[0]} can't be read: text may be compressed as .gz or .zst"
            )
        if not names:
            others = f" (there are {', '.join((hidden + foreign)[:3])})" if hidden or foreign else ""
            raise DataError(f"data.{self.field} {self.shown}: no file that ends in {' or '.join(endings)}{others}")
        return Found(tuple(names), root, tuple(hidden), tuple(foreign))


class _Ranges(io.RawIOBase):
    """An object on S3 as a file: each read is a request for those bytes, with the patience of the store."""

    def __init__(self, store: Store, name: str, size: int) -> None:
        super().__init__()
        self._store, self._name, self._size, self._at = store, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        length = left if size is None or size < 0 else min(size, left)
        if not length:
            return b""
        try:
            found = self._store.read_range(self._name, self._at, length)
        except FileNotFoundError:
            found = b""
        if len(found) != length:
            raise DataError(f"{self._name} was changed or removed while it was read")
        self._at += length
        return found

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)


def partitions(path: str) -> dict[str, str | None]:
    """Return the columns that the folders of a path stand for, as Hive writes them: `year=2024/month=1/part-0.csv`."""
    found: dict[str, str | None] = {}
    for folder in path.split("/")[:-1]:
        key, mark, value = folder.partition("=")
        if mark and key:
            found[unquote(key)] = None if value == HIVE_NULL else unquote(value)
    return found


def _is_hidden(part: str) -> bool:
    """Return whether a file or folder isn't part of a table: `_SUCCESS`, `.part-0.crc`; a partition `_k=v` is."""
    return part.startswith(".") or (part.startswith("_") and "=" not in part)


def _fixed(place: Address) -> tuple[Address, str]:
    """Return the folder before the first segment with a `*`, and the pattern below it."""
    segments = place.path.split("/")
    first = next(index for index, segment in enumerate(segments) if "*" in segment)
    for _ in segments[first:]:
        place = place.parent
    return place, "/".join(segments[first:])


def _pattern(text: str) -> re.Pattern[str]:
    """Return what a pattern matches: `*` within a name, `**` across folders; every other character is itself."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    pieces = re.split(r"(\*\*/|\*\*|\*)", text)
    return re.compile("".join(words.get(piece) or re.escape(piece) for piece in pieces) + r"\Z", re.DOTALL)
