"""Arrow files of the cache: written under another name until they are whole, and mapped into memory to be read."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import IO

import pyarrow as pa

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
    with pa.ipc.open_stream(pa.memory_map(str(path))) as reader:
        return list(reader)
