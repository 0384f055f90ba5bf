"""A process under a limit of memory: its figures, and its end when it needs more."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.bench import limit
from tests.bench.limit import anonymous, parse_anonymous, run_limited

HOLD = "import json, time; a = bytearray(b'x' * ({} << 20)); time.sleep(0.5); print(json.dumps({{'rows': len(a)}}))"


def hold(mib: int, most: int, tmp_path: Path) -> limit.Ended:
    return run_limited([sys.executable, "-c", HOLD.format(mib)], os.environ, most << 20, tmp_path / "log")


@pytest.mark.parametrize("has_groups", [True, False])
def test_more_than_the_limit_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_groups: bool) -> None:
    if not has_groups:
        monkeypatch.setattr(limit, "_parents", lambda: iter(()))
    assert hold(400, 150, tmp_path).was_killed
    within = hold(60, 150, tmp_path)
    assert within.code == 0
    assert within.out == {"rows": 60 << 20}
    assert 60 << 20 <= within.peak <= 150 << 20


def test_anonymous_memory_has_the_children_in_it(tmp_path: Path) -> None:
    inner = HOLD.format(60)
    outer = f"import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', {inner!r}], text=True))"
    ended = run_limited([sys.executable, "-c", f"{outer}; print('{{}}')"], os.environ, 150 << 20, tmp_path / "log")
    assert ended.code == 0
    assert ended.peak >= 60 << 20


def test_a_process_that_has_ended_has_none() -> None:
    assert parse_anonymous("Name:\tx\nState:\tZ (zombie)\n") == 0
    assert parse_anonymous("RssAnon:\t      12 kB\n") == 12 * 1024
    assert anonymous(2**22) == 0


def test_what_takes_too_long_is_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import threading; threading.Event().wait()"]
    found = run_limited(command, os.environ, 1 << 30, tmp_path / "log", patience=0.2)
    assert (found.is_late, found.was_killed, found.out) == (True, False, {})
