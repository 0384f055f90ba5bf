"""From a warm process to a rank that trains, with a real socket and without an agent."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from trainmaster_api.messages import Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.context import Context, Report, ReportKind, Result, Signal
from trainmaster_trainer.errors import DataError, PortTaken
from trainmaster_trainer.ipc.environment import ENV_FRAMEWORK
from trainmaster_trainer.ipc.link import Link
from trainmaster_trainer.ipc.messages import (
    Assignment,
    Dump,
    Failed,
    Finished,
    Message,
    Placement,
    Progress,
    Ready,
    Stacks,
    Stop,
)
from trainmaster_trainer.rank.run import Rank

Fit = Callable[[Context], Result]
RESULT = Result(outcome=Outcome.COMPLETE, step=3, total_steps=3)

CPUS = 3.0
"""Cores that the ranks of these tests are told of; told of others they fail."""


def use_threads(cpus: float | None, ranks: int) -> int:
    """Change nothing in this process."""
    assert cpus == CPUS
    return 1


class Agent:
    """The agent's end, and the rank in a thread of this process."""

    def __init__(self, fit: Fit) -> None:
        ours, theirs = socket.socketpair()
        self.link = Link(ours)
        self.inbox: list[Message] = []
        self.codes: list[int] = []
        rank = Rank(theirs, fit, warm=lambda: None)
        self.thread = threading.Thread(target=lambda: self.codes.append(rank.run()), daemon=True)
        self.thread.start()

    def until(self, kind: type[Message]) -> Message:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            self.inbox += self.link.receive() or []
            for message in self.inbox:
                if isinstance(message, kind):
                    self.inbox.remove(message)
                    return message
            time.sleep(0.005)
        raise AssertionError(f"no {kind}; there was {self.inbox}")

    def code(self) -> int:
        self.thread.join(60)
        return self.codes[0]


@pytest.fixture
def begin(job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Fit], Agent]:
    monkeypatch.chdir(Path.cwd())  # the rank goes to the job's folder: come back
    monkeypatch.setenv("MASTER_PORT", "")  # is set by the assignment: give back what was there
    monkeypatch.setattr("trainmaster_trainer.rank.run.name_process", lambda name: None)
    monkeypatch.setattr("trainmaster_trainer.rank.run._end_at_once", lambda: None)  # it would end this process
    monkeypatch.setattr("trainmaster_trainer.backends.torch.group.use_threads", use_threads)

    def make(fit: Fit) -> Agent:
        agent = Agent(fit)
        agent.until(Ready)
        place = Placement(
            rank=0, world_size=1, pod="job-1-w-0", attempt=2, storage_uri=str(tmp_path / "store"),
            base_dir=str(tmp_path), in_cluster=True, cpus=CPUS,
        )  # fmt: skip
        agent.link.send(Assignment(job=job, placement=place, environment={"MASTER_PORT": "29400"}))
        return agent

    return make


def test_a_rank_trains_with_what_it_was_told(begin: Callable[[Fit], Agent], job: TrainingJob, tmp_path: Path) -> None:
    seen: list[Context] = []

    def fit(context: Context) -> Result:
        seen.append(context)
        assert Path.cwd() == tmp_path, "what the job names relative to its folder is found"
        context.report(Report(kind=ReportKind.STEP, step=1, total_steps=3, epoch=0))
        return RESULT

    agent = begin(fit)
    report = agent.until(Progress)
    assert isinstance(report, Progress)
    assert report.report.step == 1
    assert agent.until(Finished) == Finished(result=RESULT)
    assert agent.code() == 0
    (context,) = seen
    assert (context.rank, context.world_size, context.attempt, context.job) == (0, 1, 2, job)
    assert context.base_dir == tmp_path
    assert context.run_uri.startswith(str(tmp_path / "store"))
    assert context.run_uri.endswith(job.metadata.uid)
    assert os.environ["MASTER_PORT"] == "29400"


@pytest.mark.parametrize(
    ("error", "failure_class", "says", "peer"),
    [
        (DataError("row 7 is broken"), FailureClass.DATA_ERROR, "row 7 is broken", False),
        (RuntimeError("gloo: Connection closed by peer"), FailureClass.WORKER_LOST, "lost its connection", True),
        (PortTaken("the rendezvous port is taken"), FailureClass.WORKER_LOST, "port is taken", True),
        (MemoryError("no"), FailureClass.HOST_OUT_OF_MEMORY, "raise cluster.workers.memory", False),
    ],
)
def test_an_exception_is_classed_and_told(
    begin: Callable[[Fit], Agent], error: Exception, failure_class: FailureClass, says: str, peer: bool
) -> None:
    def fit(context: Context) -> Result:
        raise error

    agent = begin(fit)
    found = agent.until(Failed)
    assert isinstance(found, Failed)
    assert (found.failure_class, found.peer) == (failure_class, peer)
    assert says in found.message
    assert agent.code() == 1


@pytest.mark.parametrize(
    ("error", "has_stack"), [(DataError("row 7 is broken"), False), (ValueError("no such shape"), True)]
)
def test_an_exception_is_in_the_log(
    begin: Callable[[Fit], Agent], capfd: pytest.CaptureFixture[str], error: Exception, has_stack: bool
) -> None:
    """Whole, where it is the user's; one sentence, where that says everything."""

    def fit(context: Context) -> Result:
        raise error

    assert begin(fit).code() == 1
    said = capfd.readouterr().err
    assert said.rstrip().endswith(str(error))
    assert ("in fit" in said) is has_stack


def test_even_an_exit_of_the_user_s_is_told(begin: Callable[[Fit], Agent]) -> None:
    def fit(context: Context) -> Result:
        sys.exit("the user's own exit")

    agent = begin(fit)
    found = agent.until(Failed)
    assert isinstance(found, Failed)
    assert "SystemExit" in found.message


def test_a_stop_is_seen_at_the_next_control_point(begin: Callable[[Fit], Agent]) -> None:
    def fit(context: Context) -> Result:
        assert context.control.poll() is Signal.CONTINUE
        context.report(Report(kind=ReportKind.STEP, step=1, total_steps=3, epoch=0))
        while context.control.poll() is Signal.CONTINUE:
            time.sleep(0.005)
        return RESULT.model_copy(update={"outcome": Outcome.STOPPED})

    agent = begin(fit)
    agent.until(Progress)
    agent.link.send(Stop())
    found = agent.until(Finished)
    assert isinstance(found, Finished)
    assert found.result.outcome is Outcome.STOPPED


def test_stacks_say_where_training_is(begin: Callable[[Fit], Agent]) -> None:
    go_on = threading.Event()

    def fit(context: Context) -> Result:
        context.report(Report(kind=ReportKind.STEP, step=1, total_steps=3, epoch=0))
        go_on.wait()
        return RESULT

    agent = begin(fit)
    agent.until(Progress)
    agent.link.send(Dump())
    found = agent.until(Stacks)
    assert isinstance(found, Stacks)
    assert any("go_on.wait" in line for line in found.lines)
    assert not any("control-" in line for line in found.lines)
    go_on.set()
    agent.until(Finished)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}


def test_a_warm_process_has_the_framework_and_nothing_else(tmp_path: Path) -> None:
    """No CUDA context, no thread pool at work, no Ray; and a spare that waits uses no processor."""
    code = (
        "import sys, threading\n"
        "from trainmaster_trainer.rank.warm import modules_of, warm_up\n"
        "warm_up(modules_of('torch'), is_spare=True)\n"
        "import torch\n"
        "assert not torch.cuda.is_initialized()\n"
        "assert not {'ray', 'mlflow'} & set(sys.modules), 'heavy'\n"
        "assert 'trainmaster_trainer.backends.torch.loop' in sys.modules\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_spare_warms_up_at_low_priority() -> None:
    """Only the thread that imports: the one that trains later has the priority of any other."""
    code = (
        "import os, sys, threading, types\n"
        "from trainmaster_trainer.rank import warm\n"
        "seen = []\n"
        "warm.importlib = types.SimpleNamespace(import_module=lambda name: seen.append(\n"
        "    os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))\n"
        "before = os.getpriority(os.PRIO_PROCESS, 0)\n"
        "warm.warm_up(('a',), is_spare=True)\n"
        "warm.warm_up(('a',), is_spare=False)\n"
        "assert os.getpriority(os.PRIO_PROCESS, 0) == before\n"
        "assert seen == [max(before, 10), before], seen\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_rank_ends_when_its_agent_is_gone() -> None:
    ours, theirs = socket.socketpair()
    with theirs, open(os.devnull, "wb") as crash:  # noqa: PTH123
        rank = subprocess.Popen(
            [sys.executable, "-m", "trainmaster_trainer.rank", str(theirs.fileno()), str(crash.fileno())],
            env={**environment(), ENV_FRAMEWORK: "torch"}, pass_fds=[theirs.fileno(), crash.fileno()],
        )  # fmt: skip
    with ours, ours.makefile("rb") as lines:
        assert b"ready" in lines.readline()
    assert rank.wait(30) == 1
