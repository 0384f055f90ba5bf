"""From the bytes of a pipe to lines that say whose they are."""

from __future__ import annotations

LONGEST = 64 * 2**10
"""Bytes; a longer line is broken, so that a program that never ends one needs no memory."""
PARTIAL_SECONDS = 5.0
"""How long the beginning of a line waits for its end: a progress bar redraws one line for hours."""


class LineBuffer:
    """Splits one stream into lines. What a carriage return overwrites on a terminal is left out here, too."""

    def __init__(self) -> None:
        self._rest = b""
        self._since: float | None = None

    def feed(self, data: bytes, now: float) -> bytes:
        """Add bytes that were read; return the lines that are complete, each with its line feed.

        Args:
            data: What was read.
            now: Seconds on a monotonic clock.
        """
        head, feed, tail = data.rpartition(b"\n")
        lines = self._rest + head + feed if feed else b""
        self._rest = tail if feed else self._rest + tail
        if feed or self._since is None:
            self._since = now if self._rest else None
        if b"\r" in self._rest:
            self._rest = _visible(self._rest) + (b"\r" if self._rest.endswith(b"\r") else b"")
        if len(self._rest) >= LONGEST:
            lines += self._rest + b"\n"
            self._rest, self._since = b"", None
        return b"".join(_visible(line) + b"\n" for line in lines.split(b"\n")[:-1]) if b"\r" in lines else lines

    def due(self, now: float) -> bytes:
        """Return the beginning of a line that has waited too long for its end, as a line; empty if there is none."""
        if self._since is None or now - self._since < PARTIAL_SECONDS:
            return b""
        return self.end()

    def end(self) -> bytes:
        """Return what is left at the end of the stream, as a line."""
        rest, self._rest, self._since = self._rest, b"", None
        return rest.rstrip(b"\r") + b"\n" if rest else b""


def labelled(lines: bytes, label: str) -> bytes:
    """Return complete lines with a label before each of them."""
    if not lines:
        return b""
    start = label.encode()
    return start + lines[:-1].replace(b"\n", b"\n" + start) + b"\n"


def _visible(line: bytes) -> bytes:
    r"""Return what a terminal would still show of a line; the return of `text\r\n` belongs to its end."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]
