"""What ranks print reaches the pod's output and storage, also when a rank, its agent or the collector is killed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from trainmaster_trainer.cluster.process import Process
from trainmaster_trainer.logs.settings import CollectorProcess
from trainmaster_trainer.storage.store import open_store

LOG = "logs/a1/digits-1-w-0.log"


class World:
    """A collector, its output in a file, and processes that print."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
        self.run = open_store(str(folder / "run"), None, "", {})
        with (folder / "out").open("wb") as output:
            self.collector = CollectorProcess(
                folder, self.environment, storage_uri=str(folder / "run"), path=LOG, endpoint=None, region="",
                output=output.fileno(),
            )  # fmt: skip
        self.ranks: list[Process] = []

    def rank(self, code: str, number: int = 0) -> Process:
        made = Process(
            (sys.executable, "-c", code), {**self.environment, **self.collector.environment()}, is_spare=False
        )
        made.hand_over_output(f"rank {number}")
        self.ranks.append(made)
        return made

    def printed(self) -> list[str]:
        return (self.folder / "out").read_text(errors="replace").splitlines()

    def stored(self) -> list[str]:
        return (self.run.get(LOG) or b"").decode().splitlines()

    def close(self) -> None:
        for rank in self.ranks:
            rank.kill()
            rank.close()
        self.collector.end()


@pytest.fixture
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="tm-") as folder:  # short: a socket's path has 107 characters at most
        found = World(Path(folder))
        yield found
        found.close()


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def plain(lines: list[str]) -> list[str]:
    """Stored lines without their times."""
    found = [re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (.*)", line) for line in lines]
    assert all(found), lines
    return [match[1] for match in found if match]


def test_both_streams_come_in_order_with_their_rank(world: World) -> None:
    code = "import sys\nfor n in range(100): print('out', n); print('err', n, file=sys.stderr)"
    assert world.rank(code, 1).wait_or_kill(30) == 0
    world.collector.end()
    expected = [f"[rank 1] {stream} {n}" for n in range(100) for stream in ("out", "err")]
    assert world.printed() == expected
    assert plain(world.stored()) == expected


def test_what_a_killed_rank_printed_is_kept(world: World) -> None:
    """And what its children print: a data worker, a program that it starts, the C library's last words."""
    code = (
        "import os, subprocess, signal\nprint('before')\nsubprocess.run(['/bin/echo', 'a child'])\n"
        "os.write(2, b'last words')\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    assert world.rank(code).wait_or_kill(30) == -signal.SIGKILL
    world.collector.end()
    assert world.printed() == ["[rank 0] before", "[rank 0] a child", "[rank 0] last words"]
    assert plain(world.stored()) == world.printed()


def test_what_is_uploaded_stays_when_the_pod_is_killed(world: World) -> None:
    world.rank("import time\nprint('first')\ntime.sleep(1000)")
    until(lambda: world.printed() == ["[rank 0] first"])
    world.collector.soon()
    until(world.stored)
    world.collector._process.kill()
    assert plain(world.stored()) == ["[rank 0] first"]


def test_a_megabyte_is_uploaded_while_it_runs(world: World) -> None:
    world.rank("import time\nfor n in range(40_000): print('x' * 30)\ntime.sleep(1000)")
    until(lambda: world.stored())
    assert len(world.stored()) > 20_000


def test_the_log_of_the_pod_before_of_the_same_name_stays(world: World) -> None:
    world.run.put(LOG, b"2026-01-01T00:00:00.000Z [rank 0] step 1\n")
    world.rank("print('step 2')").wait_or_kill(30)
    world.collector.end()
    found = world.stored()
    assert found[0] == "2026-01-01T00:00:00.000Z [rank 0] step 1"
    assert found[1].startswith("[trainmaster] --- the output of an earlier pod")
    assert plain(found[2:]) == ["[rank 0] step 2"]


@pytest.mark.parametrize("how", ["killed", "none"])
def test_a_rank_trains_on_without_a_collector(world: World, how: str) -> None:
    """It neither fails at a broken pipe nor waits at a full one."""
    if how == "none":
        world.collector._process.kill()
        world.collector._process.wait()
    code = "import os, sys\nprint('ready')\nfor n in range(20_000): print('x' * 40)\nos._exit(7)"
    rank = world.rank(code)
    if how == "killed":
        until(world.printed)
        world.collector._process.kill()
    assert rank.wait_or_kill(60) == 7


def test_a_process_left_behind_does_not_hold_up_the_end(world: World) -> None:
    code = "import subprocess\nprint(subprocess.Popen(['/bin/sleep', '300'], start_new_session=True).pid)"
    world.rank(code).wait_or_kill(30)
    until(world.printed)
    try:
        start = time.monotonic()
        world.collector.end()
        assert time.monotonic() - start < 15
        assert len(world.stored()) == 1
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(world.printed()[0].split()[-1]), signal.SIGKILL)


def test_storage_that_refuses_is_said_and_delays_nothing(world: World) -> None:
    (world.folder / "run").write_text("a file where a folder should be")
    world.rank("print('x' * 100)").wait_or_kill(30)
    world.collector.end()
    assert world.printed()[0] == f"[rank 0] {'x' * 100}"
    assert any("this log can't be kept in storage" in line for line in world.printed())
    (world.folder / "run").unlink()


def test_a_hundred_megabytes(world: World) -> None:
    """The end is there, the disk has 8 MiB of it, memory less than 80 MB, and the rank isn't slowed down much."""
    code = (
        "import sys, time\nline = 'x' * 99 + '\\n'\nstart = time.perf_counter()\n"
        "for n in range(2_000): sys.stdout.write(line * 500)\n"
        "print(f'\\nthe end after {time.perf_counter() - start:.2f} s')"
    )
    assert world.rank(code).wait_or_kill(120) == 0
    peak = Path(f"/proc/{world.collector._process.pid}/status").read_text()
    world.collector.end(60)
    content = world.run.get(LOG) or b""
    assert content.splitlines()[-1].split(b"] ")[1].startswith(b"the end after")
    assert b" of this log were left out here" in content
    assert len(content) < 9 * 2**20
    assert "the end after" in world.printed()[-1]
    megabytes = int(re.findall(r"VmHWM:\s+(\d+) kB", peak)[0]) / 1000
    seconds = float(world.printed()[-1].split()[-2])
    print(f"100 MB in {seconds} s, the collector took at most {megabytes:.0f} MB")
    assert megabytes < 80
    assert seconds < 20
