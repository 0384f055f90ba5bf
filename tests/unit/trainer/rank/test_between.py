"""What a training leaves in its process, and what is left of that for the next one."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainmaster_trainer.rank import between
from trainmaster_trainer.rank.between import Between


def umask() -> int:
    found = os.umask(0o022)
    os.umask(found)
    return found


def leave_much() -> None:
    os.environ["LEFT"] = "1"
    os.environ["HOME"] = "/elsewhere"
    del os.environ["PATH"]
    sys.path.insert(0, "/elsewhere")
    sys.argv.append("--left")
    os.chdir("/")
    os.umask(0o077)
    sys.setrecursionlimit(5000)
    sys.setswitchinterval(0.5)
    gc.set_threshold(1, 2, 3)
    sys.stdout = sys.stderr
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger().addHandler(logging.NullHandler())
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("error")
    signal.signal(signal.SIGUSR2, lambda number, frame: None)
    np.seterr(all="raise")


LOOKS: dict[str, Callable[[], Any]] = {
    "environment": lambda: dict(os.environ),
    "path": lambda: list(sys.path),
    "arguments": lambda: list(sys.argv),
    "directory": os.getcwd,
    "umask": umask,
    "recursion": sys.getrecursionlimit,
    "interval": sys.getswitchinterval,
    "collector": gc.get_threshold,
    "output": lambda: sys.stdout,
    "level": lambda: logging.getLogger().level,
    "handlers": lambda: list(logging.getLogger().handlers),
    "disabled": lambda: logging.root.manager.disable,
    "warnings": lambda: list(warnings.filters),
    "signal": lambda: signal.getsignal(signal.SIGUSR2),
    "numpy": np.geterr,
}


@pytest.fixture
def undone() -> Iterator[None]:
    """Whatever the tested code does, this process is as before."""
    inner = Between()
    with inner:
        yield


@pytest.mark.usefixtures("undone")
def test_nothing_of_the_process_is_left() -> None:
    before = {name: look() for name, look in LOOKS.items()}
    tested = Between()
    with tested:
        leave_much()
        assert [name for name, look in LOOKS.items() if look() == before[name]] == []
    assert {name: look() for name, look in LOOKS.items()} == before
    assert tested.is_as_new


def imported(folder: Path, tested: Between) -> int:
    """Import a module of the user's as a training does, and count in it."""
    tested.code_dir = str(folder)
    with tested:
        sys.path.append(str(folder))
        importlib.invalidate_caches()
        space: dict[str, Any] = {}
        exec("from left_nets import wide", space)
        wide = space["wide"]
        wide.count += 1
        count: int = wide.count
    return count


@pytest.mark.parametrize("is_package", [True, False])
def test_modules_of_the_users_are_imported_again(tmp_path: Path, is_package: bool) -> None:
    (tmp_path / "left_nets").mkdir()
    (tmp_path / "left_nets" / "wide.py").write_text("count = 0\n")
    if is_package:
        (tmp_path / "left_nets" / "__init__.py").write_text("")
    tested = Between()
    assert [imported(tmp_path, tested) for _ in range(3)] == [1, 1, 1]


def test_other_modules_stay(tmp_path: Path) -> None:
    tested = Between()
    tested.code_dir = str(tmp_path / "code")
    (tmp_path / "left_installed.py").write_text("")
    with tested:
        sys.path.append(str(tmp_path))
        importlib.invalidate_caches()
        importlib.import_module("left_installed")
    assert sys.modules.pop("left_installed")


def test_a_thread_that_runs_on_ends_reuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(between, "_THREAD_SECONDS", 0.01)
    tested, end = Between(), threading.Event()
    with tested:
        threading.Thread(target=end.wait, daemon=True).start()
    assert not tested.is_as_new
    end.set()


def test_a_thread_that_ends_is_waited_for() -> None:
    tested, end = Between(), threading.Event()
    with tested:
        threading.Thread(target=end.wait, daemon=True).start()
        end.set()
    assert tested.is_as_new


def test_a_child_that_runs_on_ends_reuse() -> None:
    code = (
        "import multiprocessing, time\n"
        "from trainmaster_trainer.rank.between import Between\n"
        "tested = Between()\n"
        "child = multiprocessing.get_context('fork').Process(target=time.sleep, args=[60])\n"
        "with tested: child.start()\n"
        "print(tested.is_as_new)\n"
        "child.kill()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout.strip() == "False"


def test_an_exception_ends_reuse() -> None:
    tested = Between()
    with pytest.raises(MemoryError), tested:
        raise MemoryError
    assert not tested.is_as_new


@pytest.mark.parametrize(("used", "expected"), [(1100 << 20, True), (2500 << 20, False)])
def test_growth_ends_reuse(monkeypatch: pytest.MonkeyPatch, used: int, expected: bool) -> None:
    """At half as much again and 200 MB: 1000 MB may become 1700."""
    sizes = iter([1000 << 20, used])
    monkeypatch.setattr(between, "resident_bytes", lambda: next(sizes))
    tested = Between()
    for _ in range(2):
        with tested:
            pass
    assert tested.is_as_new is expected


def test_many_trials_end_reuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(between, "MOST_TRIALS", 3)
    tested, found = Between(), []
    for _ in range(3):
        with tested:
            pass
        found.append(tested.is_as_new)
    assert found == [True, True, False]
