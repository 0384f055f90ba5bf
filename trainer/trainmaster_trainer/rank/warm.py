"""The work of a process before it knows its job: import the framework. No CUDA context, no user code."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
from pathlib import Path

_STORE = "trainmaster_trainer.storage.store"
_NICE = 10
_AUTOGROUP = Path("/proc/self/autogroup")
_importing: list[int] = []  # the kernel's number of the thread that imports


def modules_of(framework: str) -> tuple[str, ...]:
    """Return the modules that a rank of a framework imports before it knows its job."""
    from trainmaster_trainer.backends import BACKENDS

    return (*BACKENDS.get(framework, "framework").warm_modules, _STORE)


def warm_up(modules: tuple[str, ...], *, is_spare: bool) -> None:
    """Import the framework. A spare does it at low priority, because ranks train beside it.

    A priority can be lowered but not raised again without privileges. So a thread with its own priority imports; where
    the kernel schedules by session (autogroup), `hurry` restores the weight of the session.
    """
    if not is_spare:
        for module in modules:
            importlib.import_module(module)
        return
    _set_autogroup(_NICE)

    def load() -> None:
        with contextlib.suppress(OSError, AttributeError):
            _importing.append(threading.get_native_id())
            os.setpriority(os.PRIO_PROCESS, _importing[0], _NICE)
        for module in modules:
            importlib.import_module(module)

    thread = threading.Thread(target=load, name="warm-up")
    thread.start()
    thread.join()
    _importing.clear()


def hurry() -> None:
    """Restore the normal priority, even while still importing: a rank is needed."""
    _set_autogroup(0)
    for thread in _importing:
        with contextlib.suppress(OSError):  # needs privileges
            os.setpriority(os.PRIO_PROCESS, thread, 0)


def _set_autogroup(nice: int) -> None:
    for _ in range(3):
        try:
            _AUTOGROUP.write_text(str(nice))
        except BlockingIOError:
            time.sleep(0.1)  # the kernel takes one change per 100 ms
        except OSError:
            return  # no autogroups here
        else:
            return
