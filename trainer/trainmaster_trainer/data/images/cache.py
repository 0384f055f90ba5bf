"""Decoded pixels that are kept: in the memory of a rank first, then in a file for all processes of a machine."""

from __future__ import annotations

import hashlib
import mmap
import os
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info
from trainmaster_api.spec.images import Cache
from trainmaster_api.types import parse_quantity

from trainmaster_trainer.errors import ConfigurationError

from .content import Content
from .decode import Look, Pixels
from .scratch import remove_unused, scratch_folder

_MARK = 8  # bytes in front of each image


class PixelCache:
    """Pixels by row, up to a number of bytes in memory and on disk; what doesn't fit isn't kept.

    The memory is shared by a rank and the processes that are forked from it. A process that isn't forked has memory of
    its own, a share of it, and so have images with more than 8 bits in every process.

    Args:
        content: The images.
        look: How they are decoded.
        spec: `data.images.cache`.

    Raises:
        ConfigurationError: The file on disk can't be opened.
    """

    def __init__(self, content: Content, look: Look, spec: Cache) -> None:
        self._most = int(parse_quantity(spec.memory))
        self._own: dict[int, Pixels] = {}
        self._used = 0
        shape = (look.channels, *look.size)
        rows = min(len(content), self._most // (_MARK + int(np.prod(shape))))
        self._shared = _Memory(shape, rows) if rows else None
        self._disk = _open(content, look, int(parse_quantity(spec.disk)))

    def get(self, index: int) -> Pixels | None:
        """Return the pixels of a row; None: they aren't kept."""
        found = self._own.get(index)
        if found is None and self._shared is not None:
            found = self._shared.get(index)
        if found is None and self._disk is not None:
            found = self._disk.get(index)
            if found is not None:
                self._remember(index, found)
        return found

    def put(self, index: int, pixels: Pixels) -> None:
        """Keep the pixels of a row, if there is room."""
        self._remember(index, pixels)
        if self._disk is not None and pixels.dtype == np.uint8:
            self._disk.put(index, pixels)

    def _remember(self, index: int, pixels: Pixels) -> None:
        if self._shared is not None and pixels.dtype == np.uint8:
            self._shared.put(index, pixels)
            return
        worker = get_worker_info()  # of a loader for training; another one, for validation, has as many
        if self._used + pixels.nbytes <= self._most // (1 if worker is None else 2 * worker.num_workers):
            self._used += pixels.nbytes
            self._own[index] = pixels

    def __getstate__(self) -> dict[str, Any]:
        """Return it without pixels: a process that isn't forked has memory of its own."""
        return {"_most": self._most, "_own": {}, "_used": 0, "_shared": None, "_disk": self._disk}


class _Memory:
    """Memory with a place for each row, as in `_Disk`; forked processes share it.

    Args:
        shape: Shape of an image.
        rows: Number of rows that have a place.
    """

    def __init__(self, shape: tuple[int, int, int], rows: int) -> None:
        self._shape, self._rows = shape, rows
        self._place = _MARK + int(np.prod(shape))
        # takes room only where something has been written, and none of /dev/shm
        self._bytes = memoryview(mmap.mmap(-1, rows * self._place))

    def get(self, index: int) -> Pixels | None:
        if index >= self._rows:
            return None
        start = index * self._place
        mark = int.from_bytes(self._bytes[start : start + _MARK], "little")
        if not mark:
            return None
        found = bytearray(self._bytes[start + _MARK : start + self._place])
        # another process may be writing it
        return np.frombuffer(found, np.uint8).reshape(self._shape) if mark == _mark(found) else None

    def put(self, index: int, pixels: Pixels) -> None:
        if index >= self._rows:
            return
        content, start = pixels.tobytes(), index * self._place
        self._bytes[start + _MARK : start + self._place] = content
        self._bytes[start : start + _MARK] = _mark(content).to_bytes(_MARK, "little")


@dataclass
class _Disk:
    """A file with a place for each row: a mark, then the pixels.

    A row counts if its mark is the checksum of its pixels. So what a process was killed while writing doesn't count,
    nor what a machine lost that went down; and two processes may write the same row.

    Attributes:
        path: The file.
        shape: Shape of an image.
        rows: Number of rows that have a place.
    """

    path: Path
    shape: tuple[int, int, int]
    rows: int
    is_full: bool = False

    def get(self, index: int) -> Pixels | None:
        if index >= self.rows:
            return None
        size = int(np.prod(self.shape))
        try:
            found = os.pread(self._number, _MARK + size, index * (_MARK + size))
        except OSError:
            return None  # it can be decoded
        if len(found) < _MARK + size or int.from_bytes(found[:_MARK], "little") != _mark(found[_MARK:]):
            return None
        return np.frombuffer(bytearray(found[_MARK:]), np.uint8).reshape(self.shape)

    def put(self, index: int, pixels: Pixels) -> None:
        if index >= self.rows or self.is_full:
            return
        content = pixels.tobytes()
        start = index * (_MARK + len(content))
        try:
            os.pwrite(self._number, content, start + _MARK)
            os.pwrite(self._number, _mark(content).to_bytes(_MARK, "little"), start)
        except OSError:
            self.is_full = True  # the disk, or a quota: training doesn't depend on it

    @cached_property
    def _number(self) -> int:
        # positions are given with each call, so that processes may share it after a fork
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_number"}

    def __del__(self) -> None:
        if "_number" in self.__dict__:
            os.close(self._number)


def _mark(content: bytes | bytearray) -> int:
    return zlib.crc32(content) + 1  # never 0, which is what a file has where nothing was written


def _open(content: Content, look: Look, most: int) -> _Disk | None:
    shape = (look.channels, *look.size)
    rows = min(len(content), most // (_MARK + int(np.prod(shape))))
    if not rows:
        return None
    name = hashlib.sha256(f"{look} {content.identity()}".encode()).hexdigest()[:32]
    try:
        folder = scratch_folder("pixels")
        remove_unused(folder)
        found = _Disk(folder / name, shape, rows)
        os.utime(found._number)
    except OSError as error:
        raise ConfigurationError(
            f"data.images.cache.disk: the cache can't be opened: {error}; TRAINMASTER_CACHE names another folder for it"
        ) from error
    return found
