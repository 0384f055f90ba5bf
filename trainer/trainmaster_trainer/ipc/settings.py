"""The settings of a driver, written by the launcher in a pod and by `trainmaster run` on a laptop."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class DriverSettings:
    """Everything that a driver needs besides the job. A file, because other processes can read an environment.

    Attributes:
        job_file: The resolved TrainingJob, JSON.
        attempt: Number of the attempt, from 1.
        storage_uri: Storage of the runs.
        base_dir: Directory that relative data paths are relative to.
        code_dir: Folder of the user's code, unpacked; empty: base_dir.
        work_dir: Directory that a program of the user's own runs in; empty: base_dir.
        worker_cpus: Cores that a worker computes with; None: the workers share this machine.
        scratch: Directory for temporary files.
        result_file: Where the driver writes its ExitMessage.
        token_file: File with the attempt's token.
        host: Address of this machine that workers reach.
        control_port: Port of the control channel; 0: a free one.
        ray_address: Address of the cluster; empty: start Ray on this machine.
        pod: Name of this pod; empty on a laptop.
        tracking: Entries of `spec.tracking` with their defaults filled in, as plain data.
        progress_url: URL that progress is pushed to; empty: none.
        progress_ca: File with the CA of that address.
        progress_token: File with the service-account token.
        events_fd: File descriptor that events go to as JSON lines, for a display; 0: plain lines on standard output.
        heartbeat_file: File for the driver's heartbeat; empty: none.
        code_sha256: Checksum of the archive of the user's code; empty: it has none.
        code_file: That archive, where it came in the run's Secret; empty: it is in the job, in storage, or nowhere.
        git_file: File with what git says about it; empty: nothing.
        log_file: Output of the driver and its children, uploaded to storage at the end; empty: none.
    """

    job_file: str
    attempt: int
    storage_uri: str
    base_dir: str
    scratch: str
    result_file: str
    token_file: str
    host: str = "127.0.0.1"
    control_port: int = 0
    ray_address: str = ""
    pod: str = ""
    tracking: tuple[dict[str, Any], ...] = ()
    progress_url: str = ""
    progress_ca: str = ""
    progress_token: str = ""
    events_fd: int = 0
    heartbeat_file: str = ""
    log_file: str = ""
    code_dir: str = ""
    work_dir: str = ""
    worker_cpus: float | None = None
    code_sha256: str = ""
    code_file: str = ""
    git_file: str = ""

    def write(self, path: Path) -> None:
        """Write the settings to a file."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> DriverSettings:
        """Read the settings from a file."""
        data: dict[str, Any] = json.loads(path.read_text())
        return cls(**{**data, "tracking": tuple(data["tracking"])})  # JSON has no tuples
