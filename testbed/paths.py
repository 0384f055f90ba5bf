"""Where things live: the cache outlives every bed, the run directory lives as long as its bed."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent


def cache_dir() -> Path:
    """The folder for built binaries and images; survives ``down``."""
    root = os.environ.get("TRAINMASTER_CACHE")
    if not root:
        root = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainmaster")
    return Path(root) / "bed"


def bed_name() -> str:
    """Which bed the verbs talk to; a second name gives a second bed on other subnets."""
    return os.environ.get("TRAINMASTER_BED_NAME", "tm")


def run_dir(name: str) -> Path:
    """State of one bed: certificates, sockets, logs, recorded processes."""
    override = os.environ.get("TRAINMASTER_BED_DIR")
    if override:
        return Path(override)
    return Path("/run/trainmaster-bed" if name == "tm" else f"/run/trainmaster-bed-{name}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`, so that two processes don't build or load the same thing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
