"""The lines of a JSON Lines file, and the record that each of them is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from .text import PACKED, Opened, chunks_of


def lines_of(name: str, opened: Opened, start: int, size: int) -> Iterator[bytes]:
    """Yield the lines of a file from a byte of its text, without their ends.

    A line break inside of a JSON text is written as two letters.
    """
    is_packed = name.lower().endswith(PACKED)
    rest, skip = b"", start if is_packed else 0
    for chunk in chunks_of(name, opened(0 if is_packed else start), size):
        if skip:
            chunk, skip = chunk[skip:], max(0, skip - len(chunk))
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


class RefusedError(ValueError):
    """A line is JSON, and not a record."""


def _record(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise RefusedError(f"has the key {twice!r} more than once")
    return found


def _constant(word: str) -> None:
    raise RefusedError(f"has {word}, which JSON doesn't have; write null")


_DECODER = json.JSONDecoder(object_pairs_hook=_record, parse_constant=_constant)


def parsed(line: bytes) -> dict[str, Any]:
    """Return the record of a line.

    Raises:
        RefusedError: It is none; with a clause that follows `line 7`.
    """
    try:
        found = _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        wrong = " ".join(f"{byte:02x}" for byte in error.object[error.start : error.start + 4])
        raise RefusedError(f"has bytes that aren't UTF-8 ({wrong})") from None
    except json.JSONDecodeError as error:
        raise RefusedError(f"isn't JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise RefusedError("is nested too deeply") from None
    except RefusedError:
        raise
    except ValueError as error:  # an integer with more digits than Python converts
        raise RefusedError(f"can't be read: {error}") from None
    if not isinstance(found, dict):
        what = "a list" if isinstance(found, list) else "text" if isinstance(found, str) else line.decode()
        raise RefusedError(f"is {what} and not an object")
    if b"\\ud" in line or b"\\uD" in line:
        _require_text(found)
    return found


def _require_text(found: dict[str, Any]) -> None:
    """Raise if a text has half of a pair of surrogates, which JSON can escape and no encoding of Unicode holds."""
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        raise RefusedError(f"has \\u{half:04x}, half of a character") from None
