"""Between two trials of a process: what the first has left behind is taken away, or the process is given up.

Settings of torch are the backend's affair. Not undone is what code of the user's changes inside installed packages.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any

from trainmaster_trainer.kernel import resident_bytes

MOST_TRIALS = 200
_GROWTH_FACTOR = 1.5
_GROWTH_BYTES = 200 << 20
_THREAD_SECONDS = 1.0
"""How long a thread that was told to end may take."""


class Between:
    """Surrounds each training of a process.

    Attributes:
        code_dir: Folder of the user's code.
        is_as_new: Whether the process may train another job: it hasn't grown since its first, hasn't trained many, and
            nothing of the last one runs in it any more.
    """

    def __init__(self) -> None:
        self.is_as_new = True
        self.code_dir = ""
        self._count = 0
        self._first_bytes = 0
        self._undo: list[Callable[[], None]] = []
        self._modules: set[str] = set()
        self._threads: set[threading.Thread] = set()

    def __enter__(self) -> None:
        self._undo = [
            _environment(), _paths(), _directory(), _umask(), _interpreter(), _streams(), _logging(), _signals(),
            _numpy_errors(),
        ]  # fmt: skip
        self._modules = set(sys.modules)
        self._threads = set(threading.enumerate())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._count += 1
        if error is not None:
            self.is_as_new = False
            return
        for undo in self._undo:
            undo()
        _forget_modules(set(sys.modules) - self._modules, self.code_dir)
        _free()
        used = resident_bytes()
        self._first_bytes = self._first_bytes or used
        has_grown = used > _GROWTH_FACTOR * self._first_bytes + _GROWTH_BYTES
        self.is_as_new = not has_grown and self._count < MOST_TRIALS and not self._still_runs()

    def _still_runs(self) -> bool:
        """Return whether a thread or a child of the training is left: it would take cores and draw random numbers."""
        for thread in set(threading.enumerate()) - self._threads:
            thread.join(_THREAD_SECONDS)
            if thread.is_alive():
                return True
        return bool(multiprocessing.active_children())


# -- each notes something now, and returns what puts it back ------------------------------------------------------
def _environment() -> Callable[[], None]:
    before = dict(os.environ)

    def undo() -> None:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)

    return undo


def _paths() -> Callable[[], None]:
    paths, arguments = list(sys.path), list(sys.argv)

    def undo() -> None:
        sys.path[:], sys.argv[:] = paths, arguments

    return undo


def _directory() -> Callable[[], None]:
    before = os.getcwd()  # noqa: PTH109 - it may be gone, and is only put back
    return lambda: os.chdir(before)


def _umask() -> Callable[[], None]:
    before = os.umask(0o022)  # there is no way to read it only
    os.umask(before)
    return lambda: _ignored(os.umask(before))


def _interpreter() -> Callable[[], None]:
    recursion, interval, thresholds = sys.getrecursionlimit(), sys.getswitchinterval(), gc.get_threshold()

    def undo() -> None:
        sys.setrecursionlimit(recursion)
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)

    return undo


def _streams() -> Callable[[], None]:
    out, err = sys.stdout, sys.stderr

    def undo() -> None:
        sys.stdout, sys.stderr = out, err

    return undo


def _logging() -> Callable[[], None]:
    root, filters = logging.getLogger(), list(warnings.filters)
    level, handlers, disabled = root.level, list(root.handlers), root.manager.disable

    def undo() -> None:
        root.setLevel(level)
        root.handlers[:] = handlers
        logging.disable(disabled)
        warnings.filters[:] = filters  # type: ignore[index]

    return undo


def _signals() -> Callable[[], None]:
    if threading.current_thread() is not threading.main_thread():  # no other thread can set them
        return lambda: None
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}

    def undo() -> None:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    return undo


def _numpy_errors() -> Callable[[], None]:
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return lambda: None
    before = numpy.geterr()
    return lambda: _ignored(numpy.seterr(**before))


def _ignored(value: object) -> None:
    """Take what a call returns beside what it does."""


# -- what can only be taken away ----------------------------------------------------------------------------------
def _forget_modules(names: set[str], folder: str) -> None:
    """Have the user's modules imported again by the next training: they may keep something in their variables."""
    for name in names:
        if folder and _is_below(sys.modules[name], os.path.abspath(folder) + os.sep):  # noqa: PTH100 - a link stays one, as in __file__
            del sys.modules[name]


def _is_below(module: ModuleType, folder: str) -> bool:
    """Return whether a module, or a folder without `__init__.py` that is one, is the user's."""
    file = getattr(module, "__file__", None)
    # such a folder keeps its modules as attributes, where `from folder import module` finds them without importing
    places = [file] if file else [str(place) for place in getattr(module, "__path__", ())]
    return any(place.startswith(folder) and "-packages" not in place for place in places)


def _free() -> None:
    """Free what the training has left, on the GPU too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
