"""What a command is doing, on stderr: a line that is rewritten on a terminal; elsewhere a line now and then."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.text import Text

SECONDS = 10.0
"""Between two lines where there is no terminal; what is done sooner says nothing."""


class Doing:
    """Shows the last sentence that it was told, with the seconds since the start, until it is left.

    Args:
        console: Where to; default: stderr.
        seconds: Between two lines where that is no terminal.
    """

    def __init__(self, console: Console | None = None, seconds: float = SECONDS) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
        self._seconds, self._began, self._words = seconds, time.monotonic(), ""
        self._status = self._console.status("") if self._console.is_terminal else None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="progress", daemon=True)

    def say(self, words: str) -> None:
        """Take what is being done."""
        self._words = words
        if self._status is not None:
            self._status.update(self._line())

    def __enter__(self) -> Doing:
        if self._status is not None:
            self._status.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        if self._status is not None:
            self._status.stop()

    def _line(self) -> Text:
        return Text(f"{self._words} ({time.monotonic() - self._began:.0f} s)")

    def _repeat(self) -> None:
        while not self._done.wait(self._seconds if self._status is None else 1.0):
            if self._status is not None:
                self._status.update(self._line())
            elif self._words:
                self._console.print(self._line())
