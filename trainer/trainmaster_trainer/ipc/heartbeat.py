"""The driver's sign of life for the launcher beside it: a driver that hangs can't say so itself."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

BEAT_SECONDS = 1.0


def beat(path: Path) -> None:
    """Write the time to a file from now on, in a thread that ends with the process."""

    def loop() -> None:
        while True:
            with contextlib.suppress(OSError):  # a full disk is somebody else's to tell
                path.write_text(str(time.monotonic()))
            time.sleep(BEAT_SECONDS)

    threading.Thread(target=loop, name="heartbeat", daemon=True).start()


def silence(path: Path) -> float:
    """Seconds since the last beat; 0 before the first, because a start may take its time.

    Both ends read the machine's monotonic clock: a wall clock that is set would look like a silence.
    """
    with contextlib.suppress(OSError, ValueError):
        return time.monotonic() - float(path.read_text())
    return 0.0
