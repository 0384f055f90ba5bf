"""Our folder in a program's working directory, and in it the working directories of a search's trials."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path
from typing import IO

OURS = ".trainmaster"
"""Our folder in the working directory; nothing in it is the program's."""
TRIALS = "trials"
_held: list[IO[str]] = []
"""Locks of this process, as long as it lives."""


def of_trial(work_dir: Path, run: str) -> Path:
    """Return the working directory of a trial, or of the job itself where `run` is empty."""
    return work_dir / OURS / run if run else work_dir


def enter(folder: Path) -> None:
    """Make the working directory of a trial, and hold it; remove those in which no trial runs any more.

    Whatever a trial that continues needs is in its storage.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder.with_suffix(".lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_SH)
    _held.append(lock)
    folder.mkdir(exist_ok=True)  # it may have been removed in between
    for other in folder.parent.iterdir():
        if other != folder and other.is_dir():
            _remove_unless_held(other)


def _remove_unless_held(folder: Path) -> None:
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        shutil.rmtree(folder, ignore_errors=True)
