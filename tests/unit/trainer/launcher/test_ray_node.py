"""A node that comes up late, not at all, or ends: with real processes that only have the names of Ray's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# `ray start`: leaves a raylet behind, or fails as often as the file of failures has lines
START = """\
#!/bin/sh
echo "started" >> {folder}/starts
if [ -s {folder}/failures ]; then
    sed -i 1d {folder}/failures
    echo "timed out after 30 s"
    exit 1
fi
{folder}/raylet 1000 > /dev/null 2>&1 &
sleep 0.3
"""
HEAD = """\
import os, signal, sys, time
from pathlib import Path
from trainmaster_trainer.launcher.ray_node import MOST_STARTS, RayNode
from trainmaster_trainer.processes import Children, adopt_orphans, descendants
adopt_orphans()
children = Children()
folder = Path(sys.argv[1])
node = RayNode(children, [str(folder / "ray")], os.environ, folder / "log", ("raylet",))
def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        children.wait(0.02)
def trouble():
    until(lambda: node.trouble() is not None)
    return node.trouble()
def up():
    until(lambda: node.trouble() is None and node.runs)
def raylet():
    return next(p for p in descendants(os.getpid()) if Path(f"/proc/{p}/comm").read_text().strip() == "raylet")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ray").write_text(START.format(folder=tmp_path))
    (tmp_path / "ray").chmod(0o755)
    (tmp_path / "raylet").symlink_to("/bin/sleep")
    return tmp_path


def run(folder: Path, body: str) -> str:
    """In a process of its own: it adopts orphans and holds signals back."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", HEAD + body, str(folder)], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_node_comes_up_and_says_goodbye(folder: Path) -> None:
    run(
        folder,
        "up()\npid = raylet()\nnode.end(5)\nassert children.exit_of(pid) == -signal.SIGTERM, children.exits\n"
        "assert descendants(os.getpid()) == [os.getpid()]\n",
    )


def test_a_node_that_does_not_come_up_has_a_number_of_tries(folder: Path) -> None:
    (folder / "failures").write_text("1\n2\n")
    out = run(
        folder,
        "for _ in range(2):\n"
        "    print(trouble()); print(node.last_lines()[-1]); assert node.may_start_again and not node.runs\n"
        "    node.end(0); node.start()\n"
        "up()\nnode.end(0)\n",
    )
    assert "`ray start` ended with status 1; try 1 of 4" in out
    assert "try 2 of 4" in out
    assert "timed out after 30 s" in out


def test_tries_have_an_end_and_count_again_after_a_success(folder: Path) -> None:
    (folder / "failures").write_text("1\n" * 9)
    run(
        folder,
        "for _ in range(MOST_STARTS - 1):\n"
        "    trouble(); assert node.may_start_again\n"
        "    node.end(0); node.start()\n"
        "trouble(); assert not node.may_start_again\n"
        "(folder / 'failures').write_text('')\n"
        "node.end(0); node.start(); up()\n"
        "assert node.may_start_again\nnode.end(0)\n",
    )


def test_a_part_that_is_killed_is_named(folder: Path) -> None:
    out = run(folder, "up()\nos.kill(raylet(), 9)\nprint(trouble())\nassert node.runs\nnode.end(0)\n")
    assert "Ray's raylet was killed by SIGKILL" in out


def test_a_part_that_never_was_is_named(folder: Path) -> None:
    (folder / "ray").write_text("#!/bin/sh\nexit 0\n")
    assert "Ray's raylet exited right after it had started" in run(folder, "print(trouble())\nnode.end(0)\n")
