"""An agent starts ranks, keeps a spare, says how they ended. The ranks here are real processes without a framework."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.cluster.agent import Agent, Retired, torchrun_environment
from trainmaster_trainer.cluster.process import Process
from trainmaster_trainer.ipc.environment import ENV_FRAMEWORK
from trainmaster_trainer.ipc.link import Link
from trainmaster_trainer.ipc.messages import (
    Dump,
    Exited,
    Failed,
    Hello,
    Message,
    Placement,
    Retire,
    Stacks,
    Start,
    Started,
    Stop,
    Surroundings,
    Warm,
)
from trainmaster_trainer.logs.settings import ENV_SOCKET, CollectorProcess
from trainmaster_trainer.processes import descendants

# Says that it is ready, then does what the third word of its run's id says.
RANK = """
import faulthandler, os, signal, socket, subprocess, sys, threading
from trainmaster_trainer.ipc.link import Link, Talk
from trainmaster_trainer.ipc.messages import *
from trainmaster_trainer.kernel import die_with_parent
die_with_parent()
fd, crash = map(int, sys.argv[1:3])
faulthandler.enable(crash)
said = threading.Event()
def hear(message):
    if isinstance(message, Assignment):
        os.environ.update(message.environment)
        said.set()
    elif isinstance(message, Dump):
        agent.send(Stacks(lines=[os.environ["MASTER_PORT"]]))
    elif isinstance(message, Stop):
        agent.send(Failed(failure_class="DataError", message="row 7"))
        os._exit(1)
agent = Talk(socket.socket(fileno=fd), hear, lambda: os._exit(9))
agent.begin()
agent.send(Ready())
said.wait()
what = os.environ["BEHAVIOUR"]
if what == "segv": faulthandler._sigsegv()
if what == "exit": os._exit(3)
if what == "nonsense": os.write(fd, b"what?\\n")
if what == "hangup": socket.socket(fileno=os.dup(fd)).shutdown(socket.SHUT_RDWR)
if what == "children": print("child", subprocess.Popen(["/bin/sleep", "1000"]).pid, flush=True)
threading.Event().wait()
"""


@dataclass
class World:
    """An agent in a thread, and the driver's end of its connection."""

    driver: Link
    thread: threading.Thread
    inbox: list[Message] = field(default_factory=list)
    ended: list[BaseException] = field(default_factory=list)
    first: int = 0
    """Process that was started before the agent."""

    def until(self, kind: type[Message], condition: Callable[[Message], bool] = lambda message: True) -> Message:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            self.inbox += self.driver.receive() or []
            for message in self.inbox:
                if isinstance(message, kind) and condition(message):
                    self.inbox.remove(message)
                    return message
            time.sleep(0.01)
        raise AssertionError(f"no {kind}; there was {self.inbox}")

    def start(self, generation: int = 1, *, reuse: bool = False) -> Started:
        self.send_start(generation, reuse=reuse)
        found = self.until(Started)
        assert isinstance(found, Started)
        return found

    def send_start(self, generation: int, *, reuse: bool) -> None:
        port = 29400 + generation
        self.driver.send(Start(generation=generation, master_address="10.0.0.1", master_port=port, reuse=reuse))

    def exited(self) -> Exited:
        found = self.until(Exited)
        assert isinstance(found, Exited)
        return found


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


Begin = Callable[..., World]


@pytest.fixture
def begin(job: TrainingJob, tmp_path: Path) -> Iterator[Begin]:
    worlds: list[World] = []
    others = set(descendants(os.getpid()))  # multiprocessing's tracker, after a test of several ranks

    def make(behaviour: str = "run", rank: str = RANK, is_early: bool = False, python: str = sys.executable) -> World:
        ours, theirs = socket.socketpair()
        ready = threading.Event()
        world = World(Link(ours), threading.Thread())

        def run() -> None:
            # in one thread: the kernel ends a child with the thread that made it
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "BEHAVIOUR": behaviour}
            place = Placement(
                rank=1, world_size=2, attempt=1, storage_uri="/s", base_dir=str(tmp_path), in_cluster=True
            )
            hello = Hello(role="agent", rank=1)
            command = (python, "-c", rank)
            before = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            first = Process(command, before, is_spare=False) if is_early else None
            world.first = first.popen.pid if first else 0
            agent = Agent(theirs, hello, job, place, environment, command, first)
            ready.set()
            try:
                agent.run()
            except BaseException as error:  # the test looks at it
                world.ended.append(error)

        world.thread = threading.Thread(target=run)
        world.thread.start()
        ready.wait()
        worlds.append(world)
        assert world.until(Hello) == Hello(role="agent", rank=1)
        return world

    yield make
    for world in worlds:
        world.driver.close()
        world.thread.join(30)
        assert not world.thread.is_alive()
    mine = [pid for pid in descendants(os.getpid()) if pid not in others and is_alive(pid)]
    assert mine == [], "an agent leaves nothing behind"


def test_the_agent_imports_no_torch() -> None:
    code = "import sys, trainmaster_trainer.cluster.agent, trainmaster_trainer.cluster.train; print(*sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=True)
    assert "torch" not in out.stdout.split()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT])
def test_a_signal_is_told(begin: Begin, number: signal.Signals) -> None:
    world = begin()
    os.kill(world.start().pid, number)
    found = world.exited()
    assert (found.code, found.out_of_memory, found.generation) == (-number, False, 1)


def test_a_crash_says_where(begin: Begin) -> None:
    world = begin("segv")
    world.start()
    found = world.exited()
    assert found.code == -signal.SIGSEGV
    assert "Segmentation fault" in found.last_lines[0]
    assert any("_sigsegv" in line or "<string>" in line for line in found.last_lines)


def test_an_exit_code_is_told(begin: Begin) -> None:
    world = begin("exit")
    world.start()
    assert world.exited().code == 3


def test_an_agent_tells_what_it_dies_of(begin: Begin, tmp_path: Path) -> None:
    """Its own output is lost with Ray's logs. What the host lacks passes, what else is wrong doesn't."""
    world = begin(python=str(tmp_path / "none"))
    found = world.until(Failed)
    assert isinstance(found, Failed)
    assert (found.failure_class, found.generation, found.peer) == (FailureClass.WORKER_LOST, 0, True)
    assert "the agent of rank 1: FileNotFoundError" in found.message
    world = begin(behaviour="no\0value")
    found = world.until(Failed)
    assert isinstance(found, Failed)
    assert (found.failure_class, found.peer) == (FailureClass.INTERNAL_ERROR, False)
    assert "embedded null byte" in found.message
    assert "ValueError" in found.last_lines[-1]


def test_a_process_from_before_the_agent_becomes_the_rank(begin: Begin) -> None:
    """And learns what was set in the agent's environment since: Ray names the GPUs of an agent after it has started."""
    world = begin("exit", is_early=True)
    assert world.start().pid == world.first
    assert world.exited().code == 3, "which is what a variable asks for that it hadn't been started with"


@pytest.mark.parametrize("framework", ["", "torch"])
def test_only_an_agent_s_process_starts_a_rank(framework: str) -> None:
    code = (
        "import os, sys\nfrom trainmaster_trainer.cluster import first_rank\n"
        "first_rank.start()\nprocess = first_rank.take()\nassert first_rank.take() is None\n"
        "print(process.popen.pid if process else 0, 'pydantic' in sys.modules)\n"
        "if process: process.kill()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **({ENV_FRAMEWORK: framework} if framework else {})}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    pid, loaded = done.stdout.split()
    assert (int(pid) > 0, loaded) == (bool(framework), str(bool(framework)))


def test_what_a_rank_said_arrives_before_its_end(begin: Begin) -> None:
    world = begin()
    world.start()
    world.driver.send(Stop())
    assert world.until(Failed) == Failed(generation=1, failure_class="DataError", message="row 7")  # type: ignore[arg-type]
    assert world.exited().code == 1


@pytest.mark.parametrize("behaviour", ["nonsense", "hangup"])
def test_a_rank_that_makes_no_sense_is_ended(begin: Begin, monkeypatch: pytest.MonkeyPatch, behaviour: str) -> None:
    monkeypatch.setattr("trainmaster_trainer.cluster.agent._END_SECONDS", 0.2)
    world = begin(behaviour)
    world.start()
    assert world.exited().code in (-signal.SIGKILL, 9)


def test_a_spare_becomes_the_next_rank(begin: Begin) -> None:
    """Warm, and with the environment of the next group."""
    others = set(descendants(os.getpid()))
    world = begin()
    first = world.start(1)
    world.driver.send(Warm())
    spare: list[int] = []

    def appears() -> bool:
        spare[:] = [p for p in descendants(os.getpid()) if p not in {*others, first.pid} and is_alive(p)]
        return len(spare) == 1

    until(appears)
    os.kill(first.pid, signal.SIGKILL)
    world.exited()
    time.sleep(1.0)  # a spare that isn't warm yet becomes the rank too
    second = world.start(2)
    assert second.pid == spare[0]
    assert second.was_warm
    world.driver.send(Dump())
    assert world.until(Stacks) == Stacks(generation=2, lines=["29402"])


def test_an_agent_tells_its_packages_once(begin: Begin) -> None:
    world = begin()
    world.start(1)
    for _ in range(2):
        world.driver.send(Warm())
    found = world.until(Surroundings)
    assert found.packages["pydantic"] == version("pydantic")
    assert found.python == platform.python_version()
    os.kill(world.start(2).pid, signal.SIGKILL)
    world.exited()
    assert not [message for message in world.inbox if isinstance(message, Surroundings)]


def test_a_start_ends_the_rank_that_runs(begin: Begin) -> None:
    world = begin()
    first = world.start(1)
    second = world.start(2)
    assert first.pid != second.pid
    assert not is_alive(first.pid)
    assert not [message for message in world.inbox if isinstance(message, Exited)]


def test_a_start_with_reuse_keeps_the_rank(begin: Begin) -> None:
    world = begin()
    first = world.start(1)
    second = world.start(2, reuse=True)
    assert first.pid == second.pid
    os.kill(first.pid, signal.SIGKILL)
    assert world.exited() == Exited(generation=2, code=-signal.SIGKILL)


def test_a_kept_rank_that_is_gone_is_told(begin: Begin) -> None:
    """A new process can't join the process group of the others, so none is started before they are ended too."""
    world = begin()
    first = world.start(1)
    os.kill(first.pid, signal.SIGTERM)
    world.exited()
    world.send_start(2, reuse=True)
    assert world.exited() == Exited(generation=2, code=-signal.SIGTERM)
    assert world.start(3).pid != first.pid


def test_spares_that_die_are_given_up(begin: Begin) -> None:
    world = begin(rank="import sys; sys.exit(1)")
    for _ in range(6):
        world.driver.send(Warm())
        time.sleep(0.2)
    world.driver.send(Start(generation=1, master_address="a", master_port=1))
    assert world.until(Exited) == Exited(generation=1, code=1)


def test_nothing_of_a_rank_stays(begin: Begin, capfd: pytest.CaptureFixture[str]) -> None:
    world = begin("children")
    started = world.start()
    child: list[int] = []

    def appears() -> bool:
        child.extend(int(line.split()[1]) for line in capfd.readouterr().out.splitlines() if line.startswith("child"))
        return bool(child)

    until(appears)
    os.kill(started.pid, signal.SIGKILL)
    world.exited()
    until(lambda: not is_alive(child[0]))


@pytest.mark.parametrize("is_early", [False, True])
def test_what_a_rank_prints_has_its_number(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_early: bool
) -> None:
    """Also of a process that was started before the agent knew which rank it is."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with tempfile.TemporaryDirectory(prefix="tm-") as folder, (tmp_path / "out").open("wb") as out:
        collector = CollectorProcess(
            Path(folder), environment, storage_uri=str(tmp_path), path="log", endpoint=None, region="",
            output=out.fileno(),
        )  # fmt: skip
        monkeypatch.setenv(ENV_SOCKET, collector.environment()[ENV_SOCKET])
        started = begin("children", is_early=is_early).start()
        until(lambda: (tmp_path / "out").read_text())
        os.kill(started.pid, signal.SIGKILL)
        collector.end()
    assert (tmp_path / "out").read_text().startswith("[rank 1] child ")


def test_a_retired_agent_ends_with_its_rank(begin: Begin) -> None:
    world = begin()
    started = world.start()
    world.driver.send(Retire())
    world.thread.join(30)
    assert isinstance(world.ended[0], Retired)
    assert not is_alive(started.pid)


def test_without_a_driver_there_is_no_rank(begin: Begin) -> None:
    world = begin()
    started = world.start()
    world.driver.close()
    world.thread.join(30)
    assert isinstance(world.ended[0], Retired)
    assert not is_alive(started.pid)


def test_a_rank_never_outlives_its_agent(tmp_path: Path) -> None:
    """Whatever ends the agent: the kernel ends the rank."""
    code = (
        "import os, socket, subprocess, sys, time\n"
        "ours, theirs = socket.socketpair()\n"
        f"rank = subprocess.Popen([sys.executable, '-c', {RANK!r}, str(theirs.fileno()), '2'],"
        " pass_fds=[theirs.fileno()], start_new_session=True)\n"
        "ours.recv(1)\n"
        "print(rank.pid, flush=True)\n"
        "os.set_inheritable(ours.fileno(), True)\n"
        "subprocess.Popen(['/bin/sleep', '5'], close_fds=False, stdout=subprocess.DEVNULL)\n"  # keeps the socket open
        "os.kill(os.getpid(), 9)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    rank = int(done.stdout)
    until(lambda: not is_alive(rank))


def test_the_environment_is_torchrun_s(job: TrainingJob) -> None:
    place = Placement(
        rank=5, world_size=8, local_rank=1, local_world_size=4, group_rank=1, attempt=3, storage_uri="", base_dir="",
        in_cluster=True,
    )  # fmt: skip
    start = Start(generation=2, master_address="10.0.0.1", master_port=29401)
    found = torchrun_environment(place, start, job)
    expected = {
        "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "1",
        "GROUP_WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29401",
        "TORCHELASTIC_RUN_ID": f"{job.metadata.uid}-3", "TORCHELASTIC_RESTART_COUNT": "1",
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
