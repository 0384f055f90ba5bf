"""The driver with a real channel and agents that the test plays; with a Ray it is in the integration tests."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from trainmaster_api import names
from trainmaster_api.messages import CheckpointRef, ExitMessage, Outcome, TrainerState
from trainmaster_api.packing import pack
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.context import Report, ReportKind, Result
from trainmaster_trainer.driver import attempt, inbox
from trainmaster_trainer.driver.attempt import Driver
from trainmaster_trainer.ipc import auth
from trainmaster_trainer.ipc.link import Link, ask
from trainmaster_trainer.ipc.messages import (
    Dump,
    Exited,
    Failed,
    Finished,
    Hello,
    Leaving,
    Left,
    Message,
    Progress,
    Retire,
    Stacks,
    Start,
    Stop,
    Warm,
)
from trainmaster_trainer.ipc.settings import DriverSettings

Found = TypeVar("Found", bound=Message)


def with_run(job: TrainingJob, **fields: Any) -> TrainingJob:
    """The job with other fields of `spec.run`."""
    run = job.spec.run.model_copy(update=fields)
    return job.model_copy(update={"spec": job.spec.model_copy(update={"run": run})})


@pytest.mark.parametrize(
    ("state", "asked", "seconds"),
    [
        (TrainerState.TRAINING, 30, 30),
        (TrainerState.STARTING, 30, 600),
        (TrainerState.RECOVERING, 30, 600),
        (TrainerState.FINISHING, 30, 600),
        (TrainerState.STARTING, 3600, 3600),
    ],
)
def test_patience_is_longer_for_loading_and_packaging(
    job: TrainingJob, state: TrainerState, asked: int, seconds: int
) -> None:
    driver: Any = SimpleNamespace(
        job=with_run(job, stall_seconds=asked),
        run_state=SimpleNamespace(state=state),
        group=SimpleNamespace(is_own_program=False),
    )
    assert Driver._patience(driver) == seconds


class World:
    """A driver in a thread, and two agents."""

    def __init__(self, job: TrainingJob, folder: Path) -> None:
        (folder / "job.json").write_text(json.dumps(with_run(job, stop_grace_seconds=5).wire()))
        (folder / "token").write_text("t" * 64)
        self.driver = Driver(
            DriverSettings(
                job_file=str(folder / "job.json"), attempt=1, storage_uri=str(folder / "store"),
                base_dir=str(folder), scratch=str(folder), result_file=str(folder / "result"),
                token_file=str(folder / "token"), ray_address="127.0.0.1:1",
            )
        )  # fmt: skip
        self.address = ("127.0.0.1", self.driver.channel.port)
        self.found: list[ExitMessage] = []
        self.thread = threading.Thread(target=lambda: self.found.append(self.driver.lead()))
        self.thread.start()
        self.links: list[Link] = []
        self.inbox: list[list[Message]] = [[], []]

    def gather(self, group: str) -> None:
        self.links = []
        for rank in (0, 1):
            self.links.append(Link(auth.connect(self.address, "t" * 64)))
            hello = Hello(role="agent", rank=rank, group=group, pod=f"w-{rank}", host=f"10.0.0.{rank}")
            self.links[rank].send(hello)

    def until(self, rank: int, kind: type[Found]) -> Found:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            self.inbox[rank] += self.links[rank].receive() or []
            for message in self.inbox[rank]:
                if isinstance(message, kind):
                    self.inbox[rank].remove(message)
                    return message
            time.sleep(0.005)
        raise AssertionError(f"no {kind} for rank {rank}; there was {self.inbox[rank]}")

    def steps(self, generation: int, step: int) -> None:
        report = Report(kind=ReportKind.STEP, step=step, total_steps=100, epoch=0)
        self.links[0].send(Progress(generation=generation, report=report))

    def finish(self, generation: int, outcome: Outcome) -> None:
        for link in self.links:
            result = Result(outcome=outcome, step=100, total_steps=100, test_metrics={"test/accuracy": 0.5})
            link.send(Finished(generation=generation, result=result))

    def result(self) -> ExitMessage:
        self.thread.join(30)
        return self.found[0]


@pytest.fixture
def world(job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(Driver, "_run_ray", lambda self: None)
    monkeypatch.setattr(Driver, "_handle_signals", lambda self: None)  # only the main thread may
    spec = job.spec.model_copy(update={"storage": job.spec.storage.model_copy(update={"uri": str(tmp_path / "s")})})
    world = World(job.model_copy(update={"spec": spec}), tmp_path)
    yield world
    world.driver._end(ExitMessage(outcome=Outcome.FAILED))
    world.thread.join(30)
    world.driver.channel.close()


def test_a_run_from_its_agents_to_its_result(world: World) -> None:
    world.gather("a")
    first, second = world.until(0, Start), world.until(1, Start)
    assert first == second
    assert (first.generation, first.master_address) == (1, "10.0.0.0")
    assert names.PORT_RENDEZVOUS_MIN <= first.master_port <= names.PORT_RENDEZVOUS_MAX
    world.steps(1, 10)
    assert world.until(1, Warm), "training runs: now a spare costs nothing"
    world.finish(1, Outcome.COMPLETE)
    found = world.result()
    assert (found.outcome, found.message) == (Outcome.COMPLETE, "trained 100 steps; test/accuracy 0.5000")


def test_the_code_in_the_job_outlives_it(world: World, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "net.py").write_text("WIDTH = 1\n")
    archive = pack(tmp_path / "src")
    document = world.driver.job.wire()
    data = base64.b64encode(archive.data).decode()
    document["spec"]["training"]["code"] = {"inline": {"sha256": archive.sha256, "data": data}}
    world.driver.job = TrainingJob.model_validate(document)
    world.driver._claim()
    assert world.driver.run.get(f"code/{archive.sha256}.tar.gz") == archive.data


def test_a_dead_rank_is_replaced_at_another_port(world: World) -> None:
    world.gather("a")
    port = world.until(0, Start).master_port
    assert world.until(1, Start).master_port == port
    world.steps(1, 10)
    for link in world.links:
        link.send(Exited(generation=1, code=-9))
    again = world.until(1, Start)
    assert (again.generation, again.master_port) == (2, port + 1)
    assert world.driver.run_state.recoveries == 1
    world.steps(1, 99)
    world.steps(2, 20)
    world.finish(2, Outcome.COMPLETE)
    world.result()
    assert world.driver.run_state.last is not None
    assert world.driver.run_state.last.step == 20, "what an older group says is stale"


def test_the_error_of_a_rank_is_the_attempt_s(world: World) -> None:
    world.gather("a")
    world.until(0, Start)
    failed = Failed(generation=1, failure_class=FailureClass.DATA_ERROR, message="row 7", last_lines=["a"])
    world.links[1].send(failed)
    found = world.result()
    assert (found.failure_class, found.rank, found.pod, found.message) == (FailureClass.DATA_ERROR, 1, "w-1", "row 7")


def test_leaving_two_launchers_get_their_answers(world: World) -> None:
    world.gather("a")
    world.until(0, Start)
    world.steps(1, 10)
    world.until(0, Warm)
    answers: list[Message | None] = []
    launchers = [
        threading.Thread(
            target=lambda pod=pod: answers.append(ask(world.address, "t" * 64, Leaving(pod=pod, ip="1"), 20))
        )
        for pod in ("w-0", "w-1")
    ]
    for launcher in launchers:
        launcher.start()
    world.until(0, Stop)
    world.until(1, Stop)
    world.finish(1, Outcome.STOPPED)
    for launcher in launchers:
        launcher.join()
    assert answers == [Left(saved=True)] * 2
    world.links[0].close()
    world.until(1, Retire)
    world.gather("b")
    assert world.until(0, Start).generation == 2
    assert world.driver.run_state.recoveries == 1


def test_stop_saves_first(world: World) -> None:
    world.gather("a")
    world.until(0, Start)
    world.steps(1, 10)
    world.until(0, Warm)
    world.driver._stop_asked.set()
    world.until(1, Stop)
    world.finish(1, Outcome.STOPPED)
    assert world.result().message == "saved at step 100 and stopped"


def test_stall_ends_with_the_stacks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.gather("a")
    world.until(0, Start)
    world.steps(1, 10)
    world.until(0, Warm)
    monkeypatch.setattr(Driver, "_patience", lambda self: 0)
    for rank in (0, 1):
        world.until(rank, Dump)
        world.links[rank].send(Stacks(lines=[f"rank {rank} waits"]))
    found = world.result()
    assert found.failure_class is FailureClass.STALLED
    assert (found.rank, found.last_lines) == (0, ["rank 0 waits"])


@pytest.mark.parametrize("complete", [True, False])
def test_stall_without_agents_although_pods_run(world: World, monkeypatch: pytest.MonkeyPatch, complete: bool) -> None:
    monkeypatch.setattr(Driver, "_patience", lambda self: 0)
    world.driver._has_workers = complete
    if complete:
        assert "no agents" in world.result().message
    else:
        time.sleep(5 * inbox.TICK)  # the watch looks once per tick; that it stays silent can only be seen by waiting
        assert not world.found, "a missing pod is the operator's to wait for"


def test_stop_before_training_has_nothing_to_save(world: World) -> None:
    world.driver.job = with_run(world.driver.job, stop_grace_seconds=600)  # and so doesn't wait for it
    world.driver.run_state.resumed_from_step = 7
    world.gather("a")
    world.until(0, Start)
    world.driver._stop_asked.set()
    found = world.result()
    assert (found.outcome, found.message) == (Outcome.STOPPED, "stopped; will resume from step 7")


def test_stop_that_is_not_answered_ends_with_its_grace_period(world: World) -> None:
    world.driver.job = with_run(world.driver.job, stop_grace_seconds=1)
    world.gather("a")
    world.until(0, Start)
    world.steps(1, 10)
    world.until(0, Warm)
    world.driver._stop_asked.set()
    world.until(1, Stop)
    found = world.result()
    assert (found.outcome, found.message) == (Outcome.STOPPED, "stopped; will resume from step 0")


def test_stop_while_a_rank_dies_is_a_stop(world: World) -> None:
    checkpoint = CheckpointRef(step=8, attempt=1, uri="x", time="2026-01-01T00:00:00Z")
    world.gather("a")
    world.until(0, Start)
    world.steps(1, 10)
    world.until(0, Warm)
    world.driver.run_state.checkpoint = checkpoint
    world.driver._stop_asked.set()
    world.until(1, Stop)
    for link in world.links:
        link.send(Exited(generation=1, code=-9))
    found = world.result()
    assert (found.outcome, found.message, found.checkpoint) == (
        Outcome.STOPPED, "stopped; will resume from step 8", checkpoint,
    )  # fmt: skip


def test_stop_while_a_rank_fails(world: World) -> None:
    world.gather("a")
    world.until(0, Start)
    world.steps(1, 10)
    world.until(0, Warm)
    world.driver._stop_asked.set()
    world.until(1, Stop)
    world.links[1].send(Failed(generation=1, failure_class=FailureClass.DATA_ERROR, message="row 7"))
    assert world.result().failure_class is FailureClass.DATA_ERROR


def test_stall_without_stacks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "_DUMP_SECONDS", 0.2)
    world.gather("a")
    world.until(0, Start)
    world.steps(1, 10)
    world.until(0, Warm)
    monkeypatch.setattr(Driver, "_patience", lambda self: 0)
    found = world.result()
    assert (found.failure_class, found.rank, found.last_lines) == (FailureClass.STALLED, None, [])
    assert "after step 10" in found.message
