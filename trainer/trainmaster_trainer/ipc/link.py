"""One end of a connection that carries messages, and a launcher's single request."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from . import auth
from .messages import LINE_LIMIT, Hello, Message, decode, encode


class Lines:
    """Splits received bytes into lines."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self.limit = limit
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Add received bytes; return the lines that are complete.

        Raises:
            ValueError: A line is longer than the limit.
        """
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > self.limit or any(len(line) > self.limit for line in lines):
            raise ValueError(f"a line of more than {self.limit} bytes")
        return lines


class Link:
    """Messages over a socket, for a loop that waits for many: neither receiving nor sending blocks.

    As much as the socket takes is sent at once; `flush` sends the rest when the socket is writable again.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        connection.setblocking(False)
        self._lines = Lines()
        self._outgoing = b""

    def fileno(self) -> int:
        """Return the file descriptor, for a selector."""
        return self._socket.fileno()

    @property
    def is_congested(self) -> bool:
        """Whether unsent bytes wait for the socket to be writable."""
        return bool(self._outgoing)

    def send(self, message: Message) -> None:
        """Send a message, or as much of it as the socket takes."""
        self._outgoing += encode(message)
        self.flush()

    def flush(self) -> None:
        """Send the bytes that are left."""
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[self._socket.send(self._outgoing) :]
        except BlockingIOError:
            return
        except OSError:
            self._outgoing = b""  # the connection is closed, which `receive` reports

    def receive(self) -> list[Message] | None:
        """Return the messages that have arrived; None once the other side has closed the connection.

        Raises:
            ValueError: A line is not a message.
        """
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return [decode(line) for line in self._lines.feed(data)] if data else None

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class Talk:
    """Messages over a socket, for a process with other work: a thread reads, any thread sends."""

    def __init__(self, connection: socket.socket, on_message: Callable[[Message], None], on_end: Callable[[], None]):
        """Wrap a connection; `begin` starts to read.

        Args:
            connection: To the other side.
            on_message: Called with each message, in the thread that reads.
            on_end: Called when the connection is closed.
        """
        self._socket = connection
        connection.settimeout(None)
        self._lock = threading.Lock()
        self._on_message, self._on_end = on_message, on_end

    def begin(self) -> None:
        """Start to read. Separate from the constructor, because the callbacks may need the finished object."""
        threading.Thread(target=self._read, name="control-receive", daemon=True).start()

    def send(self, message: Message) -> None:
        """Send a message; blocks only while the other side takes nothing."""
        with self._lock, contextlib.suppress(OSError):  # `on_end` reports a closed connection
            self._socket.sendall(encode(message))

    def _read(self) -> None:
        lines = Lines()
        with contextlib.suppress(OSError, ValueError):
            while data := self._socket.recv(1 << 16):
                for line in lines.feed(data):
                    self._on_message(decode(line))
        self._on_end()


def ask(address: tuple[str, int], token: str, message: Message, timeout: float) -> Message | None:
    """Send a launcher's message to the driver and wait for its answer.

    Returns:
        The answer; None if there is no driver, or no answer within `timeout` seconds.
    """
    try:
        with auth.connect(address, token, min(timeout, 5.0)) as connection:
            connection.settimeout(timeout)
            connection.sendall(encode(Hello(role="launcher")) + encode(message))
            with connection.makefile("rb") as lines:
                line = lines.readline(LINE_LIMIT)
                return decode(line) if line else None
    except (OSError, ValueError):
        return None
