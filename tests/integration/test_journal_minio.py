"""The journal of a search on a real MinIO, killed and cut off in the middle of its writes: whole operations, in order.

A write is one PUT. Three things can happen to it: its process is killed, its connection is cut, and it arrives when a
newer attempt has begun. A pod adds nothing to that, so there is no end-to-end test of it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import urlsplit

import pytest
from trainmaster_trainer.errors import StorageUnavailable
from trainmaster_trainer.storage.store import Store
from trainmaster_trainer.tuning.journal import Journal

from tests.integration.minio import KEY, SECRET, minio_server

REGION = "us-west-2"
KILLS = 25
TOGETHER = 3  # operations of one write


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with minio_server(tmp_path_factory.mktemp("minio"), REGION) as server:
        yield Store("s3://data/run", server.address, REGION, access_key=KEY, secret_key=SECRET, patience=20)


def write(journal: Journal, number: int) -> None:
    """Store what belongs together: as much as an ask and its parameters."""
    journal.append_logs([{"number": number, "part": part, "text": "x" * 300} for part in range(TOGETHER)])
    journal.flush()


def written(store: Store, attempt: int) -> int:
    """Return how many writes the journal has; they are whole and in order."""
    found = [(each["number"], each["part"]) for each in Journal(store, attempt).read_logs(0)]
    assert found == [divmod(index, TOGETHER) for index in range(len(found))]
    assert len(found) % TOGETHER == 0
    return len(found) // TOGETHER


def write_until_killed(store: Store, attempt: int, told: Connection) -> None:
    journal = Journal(store, attempt)
    number = len(list(journal.read_logs(0))) // TOGETHER
    while True:
        write(journal, number)
        number += 1
        told.send(number)


def test_killed_in_the_middle_of_a_write(store: Store) -> None:
    """Whatever was flushed is there, and of what wasn't either all or nothing."""
    store = store.under("killed")
    context = multiprocessing.get_context("forkserver")  # a process that has the imports already
    context.set_forkserver_preload(["trainmaster_trainer.tuning.journal"])
    draws, unfinished = random.Random(1), 0
    for attempt in range(1, KILLS + 1):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=write_until_killed, args=[store, attempt, theirs], daemon=True)
        process.start()
        theirs.close()
        flushed = ours.recv()
        time.sleep(draws.uniform(0, 0.05))  # not for a condition: anywhere in a write
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                flushed = ours.recv()
        there = written(store, attempt)
        assert there in (flushed, flushed + 1)
        unfinished += there == flushed + 1
    assert written(store, KILLS + 1) > KILLS
    print(f"{unfinished} of {KILLS} were stored and not yet known to be")


class Proxy:
    """Passes connections on to a server; requests whose path has a name in it are held or cut off in their body."""

    def __init__(self, server: str) -> None:
        url = urlsplit(server)
        self._server = (url.hostname or "", url.port or 0)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.name, self.cuts = b"", 0
        self.has_held, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            client, _ = self._listening.accept()
            server = socket.create_connection(self._server)
            for source, target, is_request in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass, args=[source, target, is_request], daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if is_request and self.name and data.startswith(b"PUT") and self.name in data.partition(b"\r\n")[0]:
                    if self.cuts:
                        self.cuts -= 1
                        while data.endswith(b"\r\n\r\n"):  # the body comes by itself
                            data += source.recv(1 << 16)
                        target.sendall(data[:-100])
                        break
                    self.has_held.set()
                    self.go_on.wait()
                target.sendall(data)
        except OSError:
            pass
        for each in (source, target):
            each.close()


@pytest.fixture
def proxy(store: Store) -> Proxy:
    return Proxy(store.endpoint or "")


def test_connection_is_cut_in_the_middle_of_a_write(store: Store, proxy: Proxy) -> None:
    """Half a request is no object; the write is tried again, and given up with the file as it was."""
    store = store.under("cut")
    journal = Journal(replace(store, endpoint=proxy.address), 1)
    write(journal, 0)
    proxy.name, proxy.cuts = b"journal-", 2
    write(journal, 1)
    assert proxy.cuts == 0
    assert written(store, 1) == 2
    proxy.cuts = 1000
    journal = Journal(replace(store, endpoint=proxy.address, patience=1.0), 1)
    with pytest.raises(StorageUnavailable):
        write(journal, 2)
    assert proxy.cuts < 1000
    assert written(store, 2) == 2


def test_write_arrives_when_the_next_attempt_has_begun(store: Store, proxy: Proxy) -> None:
    """The fence was looked at in time, and the request was on its way for longer than the next head took to start."""
    store = store.under("late")
    old = Journal(replace(store, endpoint=proxy.address), 1)
    write(old, 0)
    proxy.name = b"journal-"
    proxy.go_on.clear()
    late = threading.Thread(target=write, args=[old, 1])
    late.start()
    assert proxy.has_held.wait(60)
    new = Journal(store, 2)
    new.append_logs([{"number": 1, "part": part, "new": True} for part in range(TOGETHER)])
    new.flush()
    proxy.go_on.set()
    late.join(60)
    assert not late.is_alive()
    files = {name: store.get(name) or b"" for name, _ in store.list("tuning")}
    assert sum(content.count(b'"number":1') for content in files.values()) == 2 * TOGETHER, "it has arrived"
    assert written(store, 3) == 2
    found: list[dict[str, Any]] = list(Journal(store, 3).read_logs(0))
    assert all(each["new"] for each in found[TOGETHER:])
