"""What a process can do before it knows its job: import the framework. No CUDA context, nothing of the user's."""

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
    """Return what a rank of a framework needs before it knows its job."""
    from trainmaster_trainer.backends import BACKENDS

    return (*BACKENDS.get(framework, "framework").warm_modules, _STORE)


def warm_up(modules: tuple[str, ...], *, is_spare: bool) -> None:
    """Import the framework. A spare does it at low priority, because ranks train beside it.

    Priority can be given up but not taken back without privileges. So a thread imports, whose priority is its own, and
    where the kernel weighs sessions against each other (autogroup) the session gets its weight back with `hurry`.
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
    """Have the priority of any other process from now on, also while still importing: a rank is needed."""
    _set_autogroup(0)
    for thread in _importing:
        with contextlib.suppress(OSError):  # it takes privileges
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
