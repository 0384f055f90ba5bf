"""The driver's end of its channel: one event loop in one thread, however many agents there are.

It costs no process, where a Ray actor would cost one of 110 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from . import auth
from .link import Lines
from .messages import LINE_LIMIT, Hello, Message, decode, encode

MOST_UNPROVED = 512  # unauthenticated connections at a time; the oldest is dropped first
_MOST_UNSENT = 4 * LINE_LIMIT  # unsent bytes per peer; one that reads no more is dropped
# A host that vanishes closes no connection: the kernel probes after 10 s of silence, and closes it 15 s later.
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPALIVE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


class Listener(Protocol):
    """Receives the channel's events, in the channel's thread; must not block."""

    def on_join(self, peer: Peer) -> None:
        """Handle an agent or a launcher that has authenticated and introduced itself."""

    def on_message(self, peer: Peer, message: Message) -> None:
        """Handle a message."""

    def on_leave(self, peer: Peer) -> None:
        """Handle a closed connection."""


class Peer:
    """An open connection, as the driver sees it."""

    def __init__(self, number: int, hello: Hello, send: Callable[[Message], None]) -> None:
        self.number = number
        self.hello = hello
        self.send = send


class Channel:
    """Listens for agents and launchers."""

    def __init__(self, host: str, port: int, token: str, listener: Listener) -> None:
        """Listen.

        Args:
            host: Address to bind.
            port: Port; 0 takes a free one.
            token: Secret that a peer must prove to know.
            listener: Receives the events.
        """
        self.token, self.listener = token, listener
        self.unproved: OrderedDict[_Connection, None] = OrderedDict()
        self.numbers = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        # bound here, so that the port is known and taken before the loop runs
        self._listening = socket.create_server((host, port), backlog=1024)
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and drop every connection."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._listening.close()

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run a function in the channel's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function, *arguments)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            self._loop.create_server(lambda: _Connection(self), sock=self._listening, backlog=1024)
        )
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


class _Connection(asyncio.Protocol):
    """First the handshake, then an introduction, then messages."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lines = Lines(auth.LINE_LIMIT)
        self._nonce = auth.nonce()
        self._transport: Any = None
        self._deadline: asyncio.TimerHandle | None = None
        self._is_proved = False
        self._peer: Peer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        _keep_alive(transport.get_extra_info("socket"))
        unproved = self._channel.unproved
        if len(unproved) >= MOST_UNPROVED:
            next(iter(unproved)).drop()
        unproved[self] = None
        self._deadline = asyncio.get_running_loop().call_later(auth.HANDSHAKE_SECONDS, self.drop)
        self._transport.write(f"{self._nonce}\n".encode())

    def data_received(self, data: bytes) -> None:
        try:
            for line in self._lines.feed(data):
                self._on_line(line)
        except ValueError:
            self.drop()

    def connection_lost(self, error: Exception | None) -> None:
        self._settle()
        if self._peer is not None:
            self._channel.listener.on_leave(self._peer)

    def drop(self) -> None:
        """Close the connection at once."""
        self._settle()
        self._transport.abort()

    def _on_line(self, line: bytes) -> None:
        if not self._is_proved:
            proof = auth.accept(self._channel.token, self._nonce, line)
            if proof is None:
                raise ValueError("the peer failed to authenticate")
            self._is_proved = True
            self._settle()
            self._lines.limit = LINE_LIMIT
            self._transport.write(proof)
            return
        message = decode(line)
        if self._peer is not None:
            self._channel.listener.on_message(self._peer, message)
        elif isinstance(message, Hello):
            self._peer = Peer(next(self._channel.numbers), message, self._send)
            self._channel.listener.on_join(self._peer)
        else:
            raise ValueError("the first message must be a hello")

    def _settle(self) -> None:
        self._channel.unproved.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()

    def _send(self, message: Message) -> None:
        """Send; may be called from any thread."""
        self._channel.call(self._write, encode(message))

    def _write(self, line: bytes) -> None:
        if self._transport.get_write_buffer_size() > _MOST_UNSENT:
            self.drop()
        elif not self._transport.is_closing():
            self._transport.write(line)


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):  # macOS names one of them differently
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
