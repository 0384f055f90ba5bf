"""The driver's heartbeat for the launcher in its pod: a driver that hangs can't report it itself."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

BEAT_SECONDS = 1.0


def beat(path: Path) -> None:
    """Start a thread that writes the time to a file once a second, until the process ends."""

    def loop() -> None:
        while True:
            with contextlib.suppress(OSError):  # a full disk is reported elsewhere
                path.write_text(str(time.monotonic()))
            time.sleep(BEAT_SECONDS)

    threading.Thread(target=loop, name="heartbeat", daemon=True).start()


def silence(path: Path) -> float:
    """Return the seconds since the last beat; 0 before the first, because a start may take long.

    Both ends read the machine's monotonic clock: setting a wall clock would look like silence.
    """
    with contextlib.suppress(OSError, ValueError):
        return time.monotonic() - float(path.read_text())
    return 0.0
