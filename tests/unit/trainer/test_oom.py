"""Kills for lack of memory are read from the cgroup."""

from __future__ import annotations

from pathlib import Path

import pytest
from trainmaster_trainer.oom import OomWatch


@pytest.mark.parametrize("name", ["sys/fs/cgroup/memory.events", "sys/fs/cgroup/memory/memory.oom_control"])
def test_oom_watch_counts_kills(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text("oom_kill_disable 0\nunder_oom 0\noom 3\noom_kill 2\n")
    watch = OomWatch(tmp_path)
    assert not watch.happened()
    path.write_text("oom_kill 3\n")
    assert watch.happened()


def test_oom_watch_without_a_cgroup(tmp_path: Path) -> None:
    assert not OomWatch(tmp_path).happened()


@pytest.mark.parametrize(
    ("own", "name"),
    [
        ("0::/user.slice/run-7.scope\n", "sys/fs/cgroup/user.slice/run-7.scope/memory.events"),
        ("4:memory:/box/7\n0::/\n", "sys/fs/cgroup/memory/box/7/memory.oom_control"),
        ("4:cpu,memory:/box/7\n", "sys/fs/cgroup/memory/box/7/memory.oom_control"),
    ],
)
def test_oom_watch_reads_the_cgroup_of_this_process(tmp_path: Path, own: str, name: str) -> None:
    """Outside of a container the files are not at the root of the tree."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(own)
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text("oom_kill 2\n")
    watch = OomWatch(tmp_path)
    path.write_text("oom_kill 3\n")
    assert watch.happened()
