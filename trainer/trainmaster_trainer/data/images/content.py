"""Image files by number, wherever they are: in a folder, in an archive, in a column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from trainmaster_trainer.data.files import Files

from .decode import UnreadableError


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


def read_file(files: Files, path: str) -> bytes:
    """Return an image file below a folder.

    Raises:
        UnreadableError: There is none.
    """
    if not files.store.is_s3:  # without the library of the store, whose threads don't survive a fork
        try:
            return (files.store.root / path).read_bytes()
        except OSError as error:
            raise UnreadableError(_reason(error)) from None
    found = files.store.get(path)
    if found is None:
        raise UnreadableError("no such file")
    return found


def file_header(files: Files, path: str) -> bytes | Path:
    """Return what the header of an image file can be read from."""
    return read_file(files, path) if files.store.is_s3 else files.store.root / path


def _reason(error: OSError) -> str:
    return "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))
