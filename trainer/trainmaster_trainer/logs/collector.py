"""Collects what the ranks of a pod print: `python -m trainmaster_trainer.logs FILE`, started by the launcher.

An agent makes a pipe for its rank and hands its reading end over, so what a rank has printed outlives rank and agent.
Every line gets its rank, and goes to the pod's own output and, with the time, to storage. A process of its own: neither
a storage that hangs nor a rank that prints 100 MB is felt by the launcher.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainmaster_trainer.kernel import name_process

from .bounded import BoundedLog
from .echo import Echo
from .lines import LineBuffer, labelled
from .settings import CollectorSettings
from .upload import Uploader

_TICK = 1.0
_CHUNK = 2**20
_END_SECONDS = 20.0
_ECHO_SECONDS = 3.0
_DRAIN_SECONDS = 5.0


@dataclass
class _Stream:
    """The pipe of one rank's process.

    Attributes:
        descriptor: Its reading end.
        label: What its lines begin with.
        lines: Its unfinished line.
    """

    descriptor: int
    label: str
    lines: LineBuffer


class Collector:
    """One loop over the socket that pipes come from and the pipes themselves."""

    def __init__(self, listener: socket.socket, log: BoundedLog, echo: Echo, clock: Callable[[], float]) -> None:
        """Wait for pipes.

        Args:
            listener: Unix socket on which agents hand over pipes.
            log: What is kept.
            echo: The pod's own output.
            clock: Seconds since 1970, for the times of the lines that are kept.
        """
        self._listener, self._log, self._echo, self._clock = listener, log, echo, clock
        listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._streams: list[_Stream] = []
        self._agents: list[socket.socket] = []

    def turn(self, seconds: float) -> None:
        """Handle what arrives within so many seconds."""
        for key, _ in self._selector.select(seconds):
            key.data()
        now = time.monotonic()
        for stream in self._streams:
            self._take(stream, stream.lines.due(now))

    def drain(self) -> None:
        """Read what is there already, and end: a process that a rank left behind may hold its pipe open."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self._selector.select(0) and time.monotonic() < deadline:
            self.turn(0)
        for stream in list(self._streams):
            self._end(stream)

    def watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call back when a descriptor is readable."""
        self._selector.register(descriptor, selectors.EVENT_READ, callback)

    def say(self, text: str) -> None:
        """Print a line of our own."""
        self._echo.add(f"[trainmaster] {text}\n".encode())

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            agent, _ = self._listener.accept()
            self._agents.append(agent)
            self._selector.register(agent, selectors.EVENT_READ, lambda: self._hear(agent))

    def _hear(self, agent: socket.socket) -> None:
        """Take over a pipe. The connection stays: as long as it does, the agent knows that somebody reads."""
        try:
            message, descriptors, _, _ = socket.recv_fds(agent, 4096, 1)
        except OSError:
            message, descriptors = b"", []
        if not message:
            self._selector.unregister(agent)
            self._agents.remove(agent)
            agent.close()
        for descriptor in descriptors:
            os.set_blocking(descriptor, False)
            stream = _Stream(descriptor, f"[{message.decode(errors='replace').strip() or '?'}] ", LineBuffer())
            self._streams.append(stream)
            self._selector.register(descriptor, selectors.EVENT_READ, lambda stream=stream: self._read(stream))

    def _read(self, stream: _Stream) -> None:
        try:
            data = os.read(stream.descriptor, _CHUNK)
        except BlockingIOError:
            return
        if data:
            self._take(stream, stream.lines.feed(data, time.monotonic()))
        else:
            self._end(stream)

    def _end(self, stream: _Stream) -> None:
        self._take(stream, stream.lines.end())
        self._selector.unregister(stream.descriptor)
        self._streams.remove(stream)
        os.close(stream.descriptor)

    def _take(self, stream: _Stream, lines: bytes) -> None:
        if lines:
            self._echo.add(labelled(lines, stream.label))
            self._log.add(labelled(lines, f"{_time(self._clock())} {stream.label}"))


def _time(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def main(arguments: list[str]) -> int:
    """Collect until the launcher says that it ends, by SIGTERM; SIGUSR1 has what is new uploaded at once."""
    settings = CollectorSettings.read(Path(arguments[0]))
    name_process("log collector")
    wishes = _wishes()
    parent = os.getppid()
    log, echo = BoundedLog(), Echo(sys.stdout.fileno())
    collector = Collector(socket.socket(fileno=settings.listener), log, echo, time.time)
    uploader = Uploader(settings.open_run, settings.path, log, collector.say)
    is_ending = False

    def obey() -> None:
        nonlocal is_ending
        asked = os.read(wishes, 64)
        is_ending = is_ending or signal.SIGTERM in asked
        if signal.SIGUSR1 in asked:
            uploader.soon()

    collector.watch(wishes, obey)
    while not is_ending and os.getppid() == parent:
        collector.turn(_TICK)
    collector.drain()
    if not uploader.close(_END_SECONDS):
        collector.say("the end of this log could not be written to storage")
    echo.close(_ECHO_SECONDS)
    sys.stdout.flush()
    os._exit(0)  # a thread may hang in a storage that doesn't answer


def _wishes() -> int:
    """Return a descriptor from which the numbers of the signals that arrived can be read."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on a laptop: the run ends first
    signal.pthread_sigmask(signal.SIG_SETMASK, set())  # a launcher holds its signals back
    return reader
