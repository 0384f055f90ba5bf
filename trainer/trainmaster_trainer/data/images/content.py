"""Image files by number, wherever they are: in a folder, in an archive, in a column."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trainmaster_trainer.data.files import Files

from .errors import UnreadableError, reason_of


class Content(Protocol):
    """The images of a source. Threads may share it; it can be pickled, and used in a forked process unless on S3."""

    shown: str
    """The source as the user wrote it."""

    @property
    def is_remote(self) -> bool:
        """Whether it is on S3, whose client doesn't survive a fork."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return what a note calls an image: `cat/1.png`."""
        ...

    def where(self, index: int) -> str:
        """Return where an image is, for messages: `pictures/cat/1.png`."""
        ...

    def read(self, index: int) -> bytes:
        """Return the file.

        Raises:
            UnreadableError: It isn't there, or is damaged.
        """
        ...

    def header(self, index: int) -> bytes | Path:
        """Return what the header of the file can be read from, without reading more than that if possible."""
        ...

    def sizes(self) -> npt.NDArray[np.int64]:
        """Return the size of each file in bytes; 0 where it isn't known without reading it."""
        ...

    def identity(self) -> str:
        """Return what is different if one of the images is another one, or its number is."""
        ...


class FolderContent:
    """Files below a folder.

    Args:
        files: The folder.
        paths: Paths below it.
    """

    def __init__(self, files: Files, paths: Sequence[str]) -> None:
        self.files, self.paths, self.shown = files, paths, files.shown

    @property
    def is_remote(self) -> bool:
        """Whether it is on S3."""
        return self.files.store.is_s3

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """Return the path below the folder."""
        return self.paths[index]

    def where(self, index: int) -> str:
        """Return the path with that of the folder."""
        return f"{self.shown}/{self.paths[index]}"

    def read(self, index: int) -> bytes:
        """Return a file."""
        return read_file(self.files, self.paths[index])

    def header(self, index: int) -> bytes | Path:
        """Return a path on disk, else the file."""
        return file_header(self.files, self.paths[index])

    def sizes(self) -> npt.NDArray[np.int64]:
        """Return the sizes that the system or S3 knows."""
        return file_sizes(self.files, self.paths)

    def identity(self) -> str:
        """Return a checksum of paths and of what changes with a file's content."""
        return files_identity(self.files, self.paths)


class JoinedContent:
    """Images of several sources behind one another, to be compared.

    Args:
        parts: The sources.
    """

    def __init__(self, parts: Sequence[Content]) -> None:
        self.parts, self.shown = parts, ", ".join(part.shown for part in parts)
        self._starts = np.cumsum([0, *map(len, parts)])

    @property
    def is_remote(self) -> bool:
        """Whether one of them is on S3."""
        return any(part.is_remote for part in self.parts)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def name(self, index: int) -> str:
        """Return the name with that of its source, as the same name may be in several."""
        return self.where(index)

    def where(self, index: int) -> str:
        """Return the name with that of its source."""
        part, own = self._of(index)
        return part.where(own)

    def read(self, index: int) -> bytes:
        """Return the file."""
        part, own = self._of(index)
        return part.read(own)

    def header(self, index: int) -> bytes | Path:
        """Return what the header can be read from."""
        part, own = self._of(index)
        return part.header(own)

    def sizes(self) -> npt.NDArray[np.int64]:
        """Return those of all sources."""
        return np.concatenate([part.sizes() for part in self.parts])

    def identity(self) -> str:
        """Return those of all sources."""
        return " ".join(part.identity() for part in self.parts)

    def _of(self, index: int) -> tuple[Content, int]:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.parts[part], index - int(self._starts[part])


def read_file(files: Files, path: str) -> bytes:
    """Return an image file below a folder.

    Raises:
        UnreadableError: There is none.
    """
    if not files.store.is_s3:  # without the library of the store, whose threads don't survive a fork
        try:
            return (files.store.root / path).read_bytes()
        except OSError as error:
            raise UnreadableError(reason_of(error)) from None
    found = files.store.get(path)
    if found is None:
        raise UnreadableError("no such file")
    return found


def file_header(files: Files, path: str) -> bytes | Path:
    """Return what the header of an image file can be read from."""
    return read_file(files, path) if files.store.is_s3 else files.store.root / path


def file_sizes(files: Files, paths: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the sizes of files that the system or S3 knows; 0 where there is none."""
    store = files.store
    if store.is_s3:
        known = dict(store.list(_common(paths)))
        return np.array([known.get(path, 0) for path in paths], dtype=np.int64)
    return np.array([_size(store.root / path) for path in paths], dtype=np.int64)


def files_identity(files: Files, paths: Sequence[str]) -> str:
    """Return a checksum of files by their ETags, or by what the system changes with their content."""
    store, digest = files.store, hashlib.sha256(f"{files.store.uri} {files.store.endpoint}".encode())
    versions = {found.path: found.version for found in store.stat_all(_common(paths))} if store.is_s3 else {}
    for path in paths:
        if store.is_s3:
            version = versions.get(path, "")
        else:  # the time of the last change of a file's content can be set, that of its status can't
            try:
                status = (store.root / path).stat()
                version = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
            except OSError as error:
                version = reason_of(error)
        digest.update(f"{len(path)}:{path} {version}\n".encode())
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # it is named when it is read


def _common(paths: Sequence[str]) -> str:
    """Return the folder that has all files."""
    return posixpath.commonpath([posixpath.dirname(path) for path in paths]) if paths else ""
