"""Files that follow from the data and are made once for all processes of a machine.

Not entries (`data.entries`), which the cache of tables has: an entry is complete before it is used, is kept by an open
lock in the process that maps it, and has the limit and the fields of `data.cache`. A file of pixels is never complete
but filled in by all ranks while they train, and a decompressed archive is opened again by worker processes, to which a
lock doesn't travel. For both, a file that was deleted is made again, or stays readable where it is open.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from trainmaster_trainer.data.cache_folder import cache_folder, make

UNUSED_SECONDS = 7 * 86_400.0
"""Age of the last use after which a file is deleted by the next one that is made."""


def scratch_folder(kind: str) -> Path:
    """Return the folder of a kind of files, in that of all caches.

    Raises:
        OSError: It can't be made, or belongs to another user.
    """
    folder = cache_folder(os.environ) / kind
    make(folder)
    return folder


def scratch_file(kind: str, identity: str, write: Callable[[BinaryIO], None]) -> Path:
    """Return a file that was written completely, by this process or by another one before.

    Args:
        kind: Name of the folder.
        identity: What the content follows from.
        write: Writes it. A process that is killed while it writes leaves nothing that another one would use.

    Raises:
        OSError: The folder can't be written to, or is full.
    """
    folder = scratch_folder(kind)
    path = folder / hashlib.sha256(identity.encode()).hexdigest()[:32]
    with locked(path):
        if not path.exists():
            remove_unused(folder)
            partial = path.with_suffix(".partial")
            try:
                with partial.open("wb") as target:
                    write(target)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        os.utime(path)
    return path


def remove_unused(folder: Path) -> None:
    """Delete files that have not been used for a long time."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process was first
            if time.time() - path.stat().st_mtime > UNUSED_SECONDS:
                path.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time work on a file."""
    with path.with_suffix(".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
