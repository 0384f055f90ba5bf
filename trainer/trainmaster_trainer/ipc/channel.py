"""The channel between the driver and everybody in its attempt: JSON lines over TCP, opened with the attempt's token.

Rank 0 sends reports and where it listens for the other ranks, every rank sends its stacks when asked, a worker's
launcher says that its pod is leaving. The driver sends `stop`, `dump` and `met`. It costs no process, where a Ray actor
would cost one of 110 MB.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import queue
import socket
import socketserver
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from trainmaster_trainer.context import Report, Signal
from trainmaster_trainer.errors import NotMet

from .codec import report_to_wire

Message = dict[str, Any]
_LINE_LIMIT = 1 << 20  # a longer line is no message of ours
_HELLO_SECONDS = 10.0
_STACK_LINES = 30


class Peer:
    """One open connection, as the driver sees it."""

    def __init__(self, hello: Message, send: Callable[[Message], None]) -> None:
        self.hello = hello
        self.send = send

    @property
    def role(self) -> str:
        """`rank` or `launcher`."""
        return str(self.hello.get("role", ""))


class ControlServer:
    """The driver's end. Messages arrive in threads of their own, one per connection."""

    def __init__(self, host: str, port: int, token: str, on_message: Callable[[Peer, Message], Message | None]) -> None:
        """Listen.

        Args:
            host: Address to bind.
            port: Port; 0 takes a free one.
            token: What a peer must say first.
            on_message: Gets every message but the first; what it returns is the answer.
        """
        self._token = token
        self._on_message = on_message
        self._lock = threading.Lock()
        self._peers: list[Peer] = []
        self._last_word: Message | None = None
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            timeout = _HELLO_SECONDS

            def handle(self) -> None:
                outer._serve(self)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 1024

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A peer that broke off has nothing to tell: its end is seen by Ray or by Kubernetes."""

        self._server = Server((host, port), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="control", daemon=True).start()

    def stop(self, leaving: bool = False) -> None:
        """Tell every rank, those that come later too, to save and stop.

        Args:
            leaving: Only a pod leaves; after its checkpoint training goes on with another.
        """
        with self._lock:
            self._last_word = {"type": "stop", "leaving": leaving}
        self._tell(self._last_word)

    def go_on(self) -> None:
        """Ranks that come from now on are not to stop."""
        with self._lock:
            self._last_word = None

    def dump(self) -> None:
        """Ask every rank for its stacks; they come as messages of type `stacks`."""
        self._tell({"type": "dump"})

    def ranks(self) -> int:
        """Number of ranks that are connected."""
        with self._lock:
            return sum(peer.role == "rank" for peer in self._peers)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def _tell(self, message: Message) -> None:
        with self._lock:
            peers = [peer for peer in self._peers if peer.role == "rank"]
        for peer in peers:
            peer.send(message)

    def _serve(self, handler: socketserver.StreamRequestHandler) -> None:
        hello = _read(handler.rfile)
        if hello is None or not hmac.compare_digest(str(hello.get("token", "")).encode(), self._token.encode()):
            return
        handler.connection.settimeout(None)
        lock = threading.Lock()

        def send(message: Message) -> None:
            with lock:
                try:
                    handler.wfile.write(_encode(message))
                except OSError:
                    return  # it is gone; whoever reads from it notices

        peer = Peer({key: value for key, value in hello.items() if key != "token"}, send)
        with self._lock:
            self._peers.append(peer)
            last_word = self._last_word
        try:
            if last_word and peer.role == "rank":
                send(last_word)
            while (message := _read(handler.rfile)) is not None:
                answer = self._on_message(peer, message)
                if answer is not None:
                    send(answer)
        finally:
            with self._lock:
                self._peers.remove(peer)


class ControlClient:
    """A rank's end: reports go out from a thread of their own, `poll` reads a flag. A lost driver is noticed by Ray."""

    def __init__(self, address: tuple[str, int], token: str, rank: int, about: Message) -> None:
        """Connect.

        Args:
            address: Host and port of the driver.
            token: The attempt's token.
            rank: This process.
            about: What the driver is told of it: pod, pid, address.
        """
        self._signal = Signal.CONTINUE
        self.leaving = False
        """Whether the stop only makes room for a leaving pod."""
        self._outgoing: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._met: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        self._socket = socket.create_connection(address, timeout=30)
        self._socket.settimeout(None)
        self._outgoing.put({"type": "hello", "token": token, "role": "rank", "rank": rank, **about})
        self._rank = rank
        self._sender = threading.Thread(target=self._send, name="control-send", daemon=True)
        self._sender.start()
        threading.Thread(target=self._receive, name="control-receive", daemon=True).start()

    def poll(self) -> Signal:
        """Whether to go on or to save and stop."""
        return self._signal

    def report(self, report: Report) -> None:
        """Queue a report; never blocks."""
        self._outgoing.put(report_to_wire(report))

    def meet(self, group: str, address: tuple[str, int] | None, timeout: float) -> tuple[str, int]:
        """Tell the other ranks of `group` where rank 0 listens (rank 0), or learn it (`address` is None).

        Raises:
            NotMet: Nobody said it within `timeout` seconds.
        """
        self._outgoing.put({"type": "meet", "group": group, "address": address})
        if address is not None:
            return address
        try:
            return self._met.get(timeout=timeout)
        except queue.Empty:
            raise NotMet(f"rank 0 did not say within {timeout:.0f} s where it listens") from None

    def close(self) -> None:
        """Send what is queued, then close."""
        self._outgoing.put(None)
        self._sender.join(timeout=5)
        with contextlib.suppress(OSError):  # the driver was quicker
            self._socket.shutdown(socket.SHUT_RDWR)  # a close alone waits for the thread that reads
        self._socket.close()

    def _send(self) -> None:
        while (message := self._outgoing.get()) is not None:
            try:
                self._socket.sendall(_encode(message))
            except OSError:
                return  # without a driver this process ends soon

    def _receive(self) -> None:
        try:
            with self._socket.makefile("rb") as lines:
                while (message := _read(lines)) is not None:
                    if message["type"] == "stop":
                        self.leaving = bool(message.get("leaving"))
                        self._signal = Signal.STOP
                    elif message["type"] == "met":
                        host, port = message["address"]
                        self._met.put((str(host), int(port)))
                    elif message["type"] == "dump":
                        self._outgoing.put({"type": "stacks", "rank": self._rank, "lines": stacks()})
        except OSError:
            return


def ask(address: tuple[str, int], token: str, role: str, message: Message, timeout: float) -> Message | None:
    """Send one message and wait for its answer.

    Returns:
        The answer; None if there is none within `timeout` seconds, or nobody listens.
    """
    try:
        with socket.create_connection(address, timeout=min(timeout, 5.0)) as connection:
            connection.settimeout(timeout)
            connection.sendall(_encode({"type": "hello", "token": token, "role": role}) + _encode(message))
            with connection.makefile("rb") as lines:
                return _read(lines)
    except OSError:
        return None


def stacks() -> list[str]:
    """Where every thread of this process is, innermost call last, without this module's own threads."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found: list[str] = []
    for ident, frame in sys._current_frames().items():
        name = names.get(ident, "?")
        if not name.startswith("control-"):
            lines = [line.rstrip() for line in traceback.format_stack(frame)]
            found += [f"thread {name}:", *"\n".join(lines).splitlines()[-_STACK_LINES:]]
    return found


def _encode(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _read(lines: Any) -> Message | None:
    """The next message; None at the end, and for anything that is no message."""
    try:
        line = lines.readline(_LINE_LIMIT)
        message = json.loads(line) if line else None
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) and isinstance(message.get("type"), str) else None
