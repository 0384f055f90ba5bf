"""The settings of a log collector, and how it is started and ended. The standard library only, until it uploads."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainmaster_trainer.storage.store import Store

ENV_SOCKET = "TRAINMASTER_LOGS"
"""Names the Unix socket of the pod's log collector; absent: a rank prints where its agent does."""
_SHORT = 0.02
_END_SECONDS = 25.0


@dataclass(frozen=True)
class CollectorSettings:
    """What a log collector needs.

    Attributes:
        listener: Descriptor of the listening socket, inherited.
        storage_uri: Address of the run.
        path: Of the log in the run.
        endpoint: Of S3; None: the environment's.
        region: Of S3.
    """

    listener: int
    storage_uri: str
    path: str
    endpoint: str | None = None
    region: str = ""

    @classmethod
    def read(cls, path: Path) -> CollectorSettings:
        """Read the settings from a file."""
        return cls(**json.loads(path.read_text()))

    def open_run(self) -> Store:
        """Return the store of the run, with the keys of the environment."""
        from trainmaster_trainer.storage.store import open_store  # takes 0.2 s, which the start of a pod needs

        from .upload import PATIENCE_SECONDS

        store = open_store(self.storage_uri, self.endpoint, self.region, os.environ)
        return replace(store, patience=PATIENCE_SECONDS)


class CollectorProcess:
    """A log collector, as the process that started it sees it."""

    def __init__(
        self,
        scratch: Path,
        environment: Mapping[str, str],
        *,
        storage_uri: str,
        path: str,
        endpoint: str | None,
        region: str,
        output: int | None = None,
    ) -> None:
        """Start it.

        Args:
            scratch: Folder for its socket and its settings.
            environment: Of the process, with the keys of the storage.
            storage_uri: Address of the run.
            path: Of the log in the run.
            endpoint: Of S3; None: the environment's.
            region: Of S3.
            output: Descriptor to which the lines go; None: our own standard output.
        """
        self.socket = scratch / "logs.sock"
        self.socket.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.socket))
            listener.listen(64)
            settings = CollectorSettings(listener.fileno(), storage_uri, path, endpoint, region)
            file = scratch / "logs.json"
            file.write_text(json.dumps(asdict(settings)))
            # held back until it handles them: to be told to end right away must not lose what was printed
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "trainmaster_trainer.logs", str(file)],
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    pass_fds=[listener.fileno()],
                    start_new_session=True,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def environment(self) -> dict[str, str]:
        """Return what tells agents below this process where to hand over the output of their ranks."""
        return {ENV_SOCKET: str(self.socket)}

    def soon(self) -> None:
        """Have what is new uploaded at once: this pod may be killed."""
        self._process.send_signal(signal.SIGUSR1)

    def end(self, seconds: float = _END_SECONDS) -> None:
        """Have it read and upload the rest; kill it after so many seconds."""
        self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while self._process.poll() is None:  # also where PID 1 has reaped it
            if time.monotonic() > deadline:
                self._process.kill()
            time.sleep(_SHORT)
