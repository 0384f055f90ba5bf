"""Where everything is kept that follows from the data and is made once for all processes of a machine."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


def cache_folder(env: Mapping[str, str]) -> Path:
    """Return the folder of all caches; each has a folder of its own in it."""
    if env.get("TRAINMASTER_CACHE"):
        return Path(env["TRAINMASTER_CACHE"])
    if env.get("XDG_CACHE_HOME"):
        return Path(env["XDG_CACHE_HOME"]) / "trainmaster"
    return temporary()


def temporary() -> Path:
    """Return the folder where the environment names none."""
    return Path(tempfile.gettempdir()) / f"trainmaster-cache-{os.getuid()}"


def make(folder: Path) -> None:
    """Make a folder in that of all caches, readable by this user only.

    Raises:
        OSError: It can't be made; or another user made the one for temporary files, and could change what is read.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    base = temporary()
    if folder.is_relative_to(base) and base.stat().st_uid != os.getuid():
        raise OSError(errno.EPERM, "belongs to another user", str(base))
