"""Programs run as a driver would run them: a process per rank, each on a disk of its own, their files kept as sets."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from trainmaster_api.messages import CheckpointRef
from trainmaster_trainer.context import Part
from trainmaster_trainer.driver.sets import Sets
from trainmaster_trainer.storage.store import Store

from tests.factories import REMOVE, make_job
from tests.unit.trainer.backends.script.warm import RANK, Forked, Warm

PROGRAMS = Path(__file__).parent / "programs"
ROOT = Path(__file__).parents[5]
SECONDS = 240.0


RUNNING: list[subprocess.Popen[bytes] | Forked] = []
"""Ranks of the test that runs; what is left of them is ended after it."""


class Run:
    """A run of a program over several lives of its ranks."""

    warm: Warm | None = None
    """What its ranks are forked from; None: each begins as a new interpreter."""

    def __init__(self, folder: Path, world: int = 1, code: Path = PROGRAMS, **script: Any) -> None:
        self.folder, self.world, self.code = folder, world, code
        self.root = folder / "run"
        self.root.mkdir(parents=True)
        no_parts = {f"spec.training.{part}": REMOVE for part in ("task", "data", "model")}
        job = make_job(no_parts, {"spec.training.script": script, "spec.cluster.workers.count": world})
        (folder / "job.json").write_text(json.dumps(job))
        self.attempt = 0
        self.reports: list[dict[str, Any]] = []
        self.commits: list[CheckpointRef] = []
        self.results: dict[int, dict[str, Any]] = {}
        self.failures: dict[int, dict[str, Any]] = {}
        self.held: set[int] = set()
        self._news: queue.Queue[tuple[int, str, Any]] = queue.Queue()
        self.ranks: list[subprocess.Popen[bytes] | Forked] = []

    def start(self, *, new_disks: bool = False) -> None:
        """Begin another life of all ranks, perhaps on other nodes."""
        self.attempt += 1
        self.results, self.failures, self.held = {}, {}, set()
        if new_disks:
            for rank in range(self.world):
                shutil.rmtree(self.disk(rank), ignore_errors=True)
        self.sets = Sets(Store(str(self.root)), str(self.root), self.attempt, self.world, 3, self.commits.append, print)
        self.sets.claim()
        self.sets.begin(self.world)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.ranks = [self._start(rank, port) for rank in range(self.world)]
        RUNNING.extend(self.ranks)
        for rank, process in enumerate(self.ranks):
            threading.Thread(target=self._listen, args=[rank, process], daemon=True).start()

    def _start(self, rank: int, port: int) -> subprocess.Popen[bytes] | Forked:
        environment = {
            **os.environ,
            "RANK": str(rank), "WORLD_SIZE": str(self.world), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
            "TORCHELASTIC_RUN_ID": f"test-{self.attempt}", "TORCHELASTIC_RESTART_COUNT": "0",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }  # fmt: skip
        arguments = [
            str(self.root),
            str(self.disk(rank)),
            str(self.code),
            str(self.attempt),
            str(self.folder / "job.json"),
        ]
        log = self.folder / f"rank-{rank}.log"
        if self.warm is not None:
            return self.warm.start(arguments, environment, log)
        with log.open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-m", RANK, *arguments], env=environment, stdout=subprocess.PIPE, stderr=file
            )

    def disk(self, rank: int) -> Path:
        """Return the working directory of a rank."""
        return self.folder / f"disk-{rank}"

    def _listen(self, rank: int, process: subprocess.Popen[bytes] | Forked) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            kind, value = json.loads(line)
            self._news.put((rank, kind, value))
        self._news.put((rank, "ended", process.wait()))

    def until(self, condition: Callable[[], bool]) -> None:
        """Handle what the ranks say until a condition holds."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            try:
                self._take(*self._news.get(timeout=0.1))
            except queue.Empty:
                assert time.monotonic() < deadline, self.log()

    def _take(self, rank: int, kind: str, value: Any) -> None:
        if kind == "part":
            self.sets.take(Part.model_validate(value))
        elif kind == "report":
            self.reports.append(value)
        elif kind == "result":
            self.results[rank] = value
        elif kind == "failed":
            self.failures[rank] = value
        elif kind == "held":
            self.held.add(rank)

    @property
    def step(self) -> int:
        """The newest step that was reported."""
        return max((each["step"] for each in self.reports if each["kind"] != "Resumed"), default=0)

    def kill(self) -> None:
        """Kill all ranks, as a node that fails does; what is being committed is committed."""
        for process in self.ranks:
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.sets._thread.shutdown(wait=True)
        while not self._news.empty():
            self._news.get()

    def finish(self) -> str:
        """Wait for the end of all ranks; return the address of the model."""
        self.until(lambda: len(self.results) + len(self.failures) == self.world)
        assert not self.failures, (self.failures, self.log())
        outcome = self.results[0]["outcome"]
        return self.sets.finish(is_complete=outcome == "Complete")

    def log(self) -> str:
        """Return what the ranks printed."""
        return "\n".join(file.read_text() for file in sorted(self.folder.glob("rank-*.log")))[-3000:]

    def model(self) -> dict[str, str]:
        """Return the checksum of what each file of the model holds: the bytes of a pickle depend on more than that."""
        return checksums(self.root / "model")


def checksums(folder: Path) -> dict[str, str]:
    """Return the checksum of what each file holds."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(repr(_content(file)).encode()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.is_symlink() and file.name != "data.json"
    }


def _content(file: Path) -> Any:
    if file.suffix in (".pt", ".pth", ".ckpt"):
        with contextlib.suppress(pickle.UnpicklingError):  # of more than tensors
            return _plain(torch.load(file))
    if file.suffix == ".npz":
        return {name: values.tolist() for name, values in np.load(file).items()}
    return file.read_bytes()


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (
            str(value.dtype),
            value.float().numpy().tobytes().hex() if value.is_floating_point() else value.tolist(),
        )
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def undisturbed(folder: Path, world: int = 1, **script: Any) -> dict[str, str]:
    """Run a program once to its end; return its files."""
    run = Run(folder, world, **script)
    run.start()
    run.finish()
    return run.model()
