"""Steps of a program that we didn't write: counted by torch's global hook, or told by the program."""

from __future__ import annotations

import bisect
import math
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from trainmaster_trainer.context import Context, Report, ReportKind

_HISTORY = 8192
# Linux stamps files with CLOCK_REALTIME_COARSE, which moves every few milliseconds. Python has no name for it; its
# number is a part of the kernel's interface (clock_gettime(2)).
_COARSE = 5 if sys.platform == "linux" else None
_TICK_SECONDS = 0.001
_MOST_FOLLOWED = 4  # 2 µs each, in every step
_ROUNDING = 1e-6  # Python's seconds of a clock and of a file that have the same nanoseconds differ in the last digit
_LOADS, _DEEPEST_STEP = "torch.distributed.checkpoint.state_dict", 8  # calls from there to our hook
_VALIDATION = ("val_", "eval_", "val/", "eval/")


class Moment(NamedTuple):
    """When a step was made, in seconds since the epoch.

    Attributes:
        at: By a clock that is exact.
        ticked: By the clock that files are stamped with, so never above a file's time if the file was written later.
        step: Number of the step.
        found_changed: Whether one of the files that are followed has changed since the step before.
    """

    at: float
    ticked: float
    step: int
    found_changed: bool = False


class Progress:
    """How far the program is. The hook runs in the user's thread, in every step: it only counts.

    A step is an optimizer step. A program with several optimizers has made as many steps as the busiest of them; a step
    that a gradient scaler skips isn't one.

    Attributes:
        base: Step of the set of files that the program resumed from; 0 once it is known to have read none.
        is_told: Whether every step is told by `made`, so that the hook has nothing to count.
        first_at: When the first step of this process was made, monotonic; None: not yet.
    """

    def __init__(self) -> None:
        self.base = 0
        self.is_told = False
        self.first_at: float | None = None
        self.last_at = time.monotonic()
        self._lock = threading.Lock()
        self._counts: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._counted = self._validated = 0
        self._told: int | None = None
        self._history: deque[Moment] = deque(maxlen=_HISTORY)
        self._places: Callable[[], Iterable[str]] = tuple
        self._followed: tuple[str, ...] = ()
        self._looked: list[tuple[int, int, int] | None] = []
        self.total = 0
        self.epoch = 0
        self.metrics: dict[str, float] = {}
        self.fresh: dict[str, float] = {}
        """Metrics since `take`."""

    @property
    def step(self) -> int:
        """Steps done since the start of the whole training."""
        return self._told if self._told is not None else self.base + (self._counted or self._validated)

    def step_at(self, modified: float) -> int:
        """Return the newest step that had been made when a file was written, by the file's time of its last change."""
        with self._lock:
            history = list(self._history)
        found = last_before(history, modified + _ROUNDING)
        return history[found].step if found >= 0 else self.base

    def follow(self, places: Callable[[], Iterable[str]]) -> None:
        """Look at files and folders after each step.

        Args:
            places: Returns them, the most important first, of which only the first few are looked at. Called now, and
                whenever one of them has changed: a program's first file is often in a folder that it has just made.
        """
        with self._lock:
            self._places = places
            self._choose()

    def _choose(self) -> None:
        followed = tuple(self._places())[:_MOST_FOLLOWED]
        if followed != self._followed:
            self._followed = followed
            self._looked = [_looks(path) for path in followed]

    def _found_changed(self) -> bool:
        before, self._looked = self._looked, [_looks(path) for path in self._followed]
        if self._looked == before:
            return False
        self._choose()
        return True

    def count(self, optimizer: Any, *_: Any) -> None:
        """Be torch's hook: called after each step of any optimizer."""
        if self.is_told:
            return
        with self._lock:
            count = self._counts.get(optimizer, 0) + 1
            if count == 1 and _is_of_a_load():
                return
            self._counts[optimizer] = count
            if count > self._counted:
                self._counted = count
                self._moved()

    def made(self, step: int, epoch: int) -> None:
        """Take the step that a Trainer is at after a batch, by its own count."""
        if step != self._told:
            with self._lock:
                self._told, self.epoch = step, epoch
                self._moved()

    def tell(self, step: int | None, total: int | None, epoch: int | None, metrics: dict[str, float]) -> None:
        """Take what the program says of itself; it knows better than the count."""
        with self._lock:
            if total is not None:
                self.total = max(0, int(total))
            if epoch is not None:
                self.epoch = max(0, int(epoch))
            if step is not None and (self._told is None or int(step) != self._told):
                self._told = max(0, int(step))
                self._moved()
            named = {metric_name(name): value for name, value in metrics.items()}
            self.metrics |= named
            self.fresh |= named

    def validated(self) -> None:
        """Take note of a validation of a trial: the step of a program that makes no other."""
        with self._lock:
            if self._told is None and not self._counted:
                self._validated += 1
                self._moved()

    def wait_for_tick(self) -> None:
        """Wait until a file that is written from now on has a later time than the newest step."""
        with self._lock:
            newest = self._history[-1].at if self._history else 0.0
        while _ticked() <= newest:
            time.sleep(_TICK_SECONDS)

    def take(self) -> dict[str, float]:
        """Return the metrics that were told since the last call."""
        with self._lock:
            found, self.fresh = self.fresh, {}
            return found

    def _moved(self) -> None:
        self._history.append(Moment(time.time(), _ticked(), self.step, self._found_changed()))
        self.last_at = time.monotonic()
        if self.first_at is None:
            self.first_at = self.last_at


def _is_of_a_load() -> bool:
    """Return whether the step that has called us is one that torch makes to load an optimizer's sharded state.

    It makes it with gradients of 0 where the optimizer has no state yet, so it is an optimizer's first.
    """
    frame = sys._getframe(2)
    for _ in range(_DEEPEST_STEP):
        if frame.f_globals.get("__name__") == _LOADS or frame.f_back is None:
            break
        frame = frame.f_back
    return frame.f_globals.get("__name__") == _LOADS


def _ticked() -> float:
    """Return the time by the clock that files are stamped with."""
    return time.time() if _COARSE is None else time.clock_gettime(_COARSE)


def _looks(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - in every step, and a Path costs more than the call
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def last_before(history: Sequence[Moment], modified: float) -> int:
    """Return the index of the last step before a file was written; -1: it was written before all of them.

    A file's time may be up to a tick of the kernel's clock before it was written, and a fast program makes several
    steps in a tick. Then it is the step before the one that found a file changed; failing that, the one before the
    longest pause.
    """
    first = bisect.bisect_right(history, modified, key=lambda each: each.at) - 1
    last = bisect.bisect_right(history, modified, key=lambda each: each.ticked) - 1

    def likelihood(index: int) -> tuple[bool, float]:
        if index + 1 >= len(history):
            return False, math.inf
        after = history[index + 1]
        return after.found_changed, after.at - (history[index].at if index >= 0 else modified)

    return max(range(first, last + 1), key=likelihood, default=last)


def metric_name(name: str) -> str:
    """Return a metric's name as ours are: `val/loss` for `val_loss` and `eval_loss`, `train/loss` for `loss`."""
    for prefix in _VALIDATION:
        if name.startswith(prefix):
            return f"val/{name.removeprefix(prefix)}"
    return name if "/" in name else f"train/{name.removeprefix('train_')}"


class Reporter:
    """Sends what is new to the driver, from rank 0."""

    def __init__(self, context: Context, progress: Progress, began: float) -> None:
        self._context, self._progress, self._began = context, progress, began
        self._sent: tuple[int, int] | None = None
        self._is_first = True

    def look(self) -> dict[str, float]:
        """Report a new step or new metrics; return those metrics."""
        progress = self._progress
        metrics = progress.take()
        if self._context.rank != 0:
            return {}
        moved = progress.first_at is not None and self._sent != (progress.step, progress.total)
        if moved or metrics:
            is_validated = any(name.startswith("val/") for name in metrics)
            kind = ReportKind.FIRST_STEP if self._is_first and moved else ReportKind.STEP
            self.send(ReportKind.VALIDATION if is_validated and kind is ReportKind.STEP else kind)
            self._is_first = self._is_first and not moved
            self._sent = (progress.step, progress.total)
        return metrics

    def send(self, kind: ReportKind, **more: Any) -> None:
        """Send a report with the newest values."""
        if self._context.rank == 0:
            progress = self._progress
            values = {
                "step": progress.step,
                "total_steps": max(progress.total, progress.step if progress.total else 0),
                "epoch": progress.epoch,
                "eta_seconds": self._eta(),
                "metrics": dict(progress.metrics),
            }
            self._context.report(Report(kind=kind, **{**values, **more}))

    def _eta(self) -> float | None:
        progress = self._progress
        if progress.first_at is None or not progress.total or progress.step <= progress.base:
            return None
        done = progress.step - progress.base
        pace = (progress.last_at - progress.first_at) / max(1, done - 1)
        return max(0.0, pace * (progress.total - progress.step)) if done > 1 else None
