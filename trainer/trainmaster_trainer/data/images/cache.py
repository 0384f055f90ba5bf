"""Decoded pixels that are kept: in the memory of a process first, then in a file for all processes of a machine."""

from __future__ import annotations

import hashlib
import os
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from trainmaster_api.spec.images import Cache
from trainmaster_api.types import parse_quantity

from trainmaster_trainer.errors import ConfigurationError

from .content import Content
from .decode import Look, Pixels
from .scratch import remove_unused, scratch_folder

_MARK = 8  # bytes in front of each image


class PixelCache:
    """Pixels by row, up to a number of bytes in memory and on disk; what doesn't fit isn't kept.

    Args:
        content: The images.
        look: How they are decoded.
        spec: `data.images.cache`.

    Raises:
        ConfigurationError: The file on disk can't be opened.
    """

    def __init__(self, content: Content, look: Look, spec: Cache) -> None:
        self._memory: dict[int, Pixels] = {}
        self._room = int(parse_quantity(spec.memory))
        self._disk = _open(content, look, int(parse_quantity(spec.disk)))

    def get(self, index: int) -> Pixels | None:
        """Return the pixels of a row; None: they aren't kept."""
        found = self._memory.get(index)
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
        if pixels.nbytes <= self._room:
            self._room -= pixels.nbytes
            self._memory[index] = pixels

    def __getstate__(self) -> dict[str, Any]:
        """Return it without pixels: another process has a memory of its own."""
        room = self._room + sum(pixels.nbytes for pixels in self._memory.values())
        return {"_memory": {}, "_room": room, "_disk": self._disk}


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


def _mark(content: bytes) -> int:
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
