"""Reading ahead in columns that are mapped from files: the kernel is told what comes next, a column at a time."""

from __future__ import annotations

import ctypes
import mmap

import pyarrow as pa

MOST = 256 << 20
"""Bytes that are asked for; of a column that is larger, the rest comes a page at a time."""
AT_ONCE = 128 << 10
"""Bytes of a request: the kernel reads no more of each than the disk's read-ahead, which is this by default."""
_MADVISE = getattr(ctypes.CDLL(None, use_errno=True), "madvise", None)  # Python's own needs the mapping, not an address


def will_need(values: pa.ChunkedArray) -> None:
    """Let the kernel read the values in the background where they are mapped from a file; else nothing happens.

    A column of a table of many columns is a small part of each batch, so that reading it a page at a time is as slow
    as the disk's random reads.
    """
    advice = getattr(mmap, "MADV_WILLNEED", None)
    if _MADVISE is None or advice is None:
        return
    left = MOST
    for chunk in values.iterchunks():
        is_fixed = pa.types.is_primitive(chunk.type) and not pa.types.is_boolean(chunk.type)
        width = chunk.type.bit_width // 8 if is_fixed else 0  # a slice of it needs its own rows alone
        for number, buffer in enumerate(chunk.buffers()):
            if buffer is None or not buffer.size:
                continue
            is_values = is_fixed and number == 1
            start = buffer.address + (chunk.offset * width if is_values else 0)
            size = min(left, len(chunk) * width if is_values else buffer.size)
            first = start - start % mmap.PAGESIZE
            for at in range(first, start + size, AT_ONCE):
                length = min(AT_ONCE, start + size - at)
                _MADVISE(ctypes.c_void_p(at), ctypes.c_size_t(length), ctypes.c_int(advice))
            left -= size
            if left <= 0:
                return
