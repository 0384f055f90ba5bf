"""One large file, on disk or on S3, that is read in ranges."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, cast

from trainmaster_trainer.storage.store import Store

_ON_DISK = 2**16
_ON_S3 = 4 * 2**20  # an answer takes as long as some megabytes of it


@dataclass(frozen=True)
class Blob:
    """A file.

    Attributes:
        store: Where it is.
        name: Its path there.
        size: Its bytes.
        version: Its ETag, or what of a file on disk changes with its content.
    """

    store: Store
    name: str
    size: int
    version: str

    @classmethod
    def open(cls, store: Store, name: str) -> Blob | None:
        """Return the file of a name; None: there is none."""
        found = store.stat(name)
        if found is None:
            return None
        if store.is_s3:
            return cls(store, name, found.size, found.version)
        status = (store.root / name).stat()
        return cls(store, name, status.st_size, f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}")

    @property
    def identity(self) -> str:
        """Return what no other content of this or another file has."""
        return f"{self.store.uri} {self.store.endpoint or ''} {self.name} {self.size} {self.version}"

    def read_at(self, offset: int, length: int) -> bytes:
        """Return a range; less of it at the end of the file.

        Raises:
            StorageUnavailable: It can't be read.
        """
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        if self.store.is_s3:
            return self.store.read_range(self.name, offset, length)
        parts, number = [], self._handle.fileno()
        while length and (part := os.pread(number, length, offset)):  # has no position that processes would share
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def file(self) -> BinaryIO:
        """Return it as a file that is read from the start."""
        return cast(BinaryIO, io.BufferedReader(_Reader(self), _ON_S3 if self.store.is_s3 else _ON_DISK))

    @cached_property
    def _handle(self) -> BinaryIO:
        return (self.store.root / self.name).open("rb", buffering=0)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process opens it with."""
        return {key: value for key, value in self.__dict__.items() if key != "_handle"}


class _Reader(io.RawIOBase):
    def __init__(self, blob: Blob) -> None:
        self.blob, self.position = blob, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.blob.size}[whence]
        self.position = max(0, start + offset)
        return self.position

    def readinto(self, buffer: Any) -> int:
        found = self.blob.read_at(self.position, len(buffer))
        buffer[: len(found)] = found
        self.position += len(found)
        return len(found)
