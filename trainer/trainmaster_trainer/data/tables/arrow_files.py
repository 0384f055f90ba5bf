"""Arrow files of the cache: written under another name until they are whole, and mapped into memory to be read."""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import IO

import pyarrow as pa

from .ahead import AT_ONCE

SEGMENT = 128 << 20
"""Bytes of a file; the most that is read again after a process was killed."""


class ArrowWriter:
    """Writes record batches of one schema to a file, which is there when it is whole."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Args:
            path: Where it will be.
        """
        self._path, self._part = path, path.with_suffix(".tmp")
        self._file: IO[bytes] = self._part.open("wb")
        self._writer: pa.RecordBatchStreamWriter | None = None
        self.size = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch."""
        if self._writer is None:
            self._writer = pa.ipc.new_stream(self._file, batch.schema)
        self._writer.write_batch(batch)
        self.size += batch.nbytes

    def __enter__(self) -> ArrowWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Give the file its name, unless there was an error."""
        if kind is not None:
            self.abandon()
        else:
            self.finish()

    def finish(self) -> None:
        """Give the file its name."""
        if self._writer is not None:
            self._writer.close()
        self._file.close()
        self._part.rename(self._path)

    def abandon(self) -> None:
        """Remove what was written."""
        self._file.close()
        self._part.unlink(missing_ok=True)


def mapped(path: Path) -> list[pa.RecordBatch]:
    """Return the batches of a file, mapped: its pages are the kernel's, and read when they are needed."""
    with pa.ipc.open_stream(pa.BufferReader(pa.py_buffer(mapping(path)))) as reader:
        return list(reader)


def mapping(path: Path) -> mmap.mmap:
    """Return a file's bytes, mapped to be read in any order.

    The kernel is told so: by itself it reads as much around each page as the disk's read-ahead, up to megabytes, and
    what is asked for is a row, or a column's part of a batch.
    """
    with path.open("rb") as file:
        found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    found.madvise(mmap.MADV_RANDOM)
    return found


def read_ahead(path: Path) -> None:
    """Let the kernel read a whole file in the background; nothing is wrong if it isn't there, or memory is short."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        for start in range(0, os.fstat(file.fileno()).st_size, AT_ONCE):
            os.posix_fadvise(file.fileno(), start, AT_ONCE, os.POSIX_FADV_WILLNEED)
