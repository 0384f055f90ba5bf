"""Every sink that is configured hears of the run; one that is dead costs a bounded time."""

from __future__ import annotations

import json
import os
import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.layout import EVENTS, LOGS
from trainmaster_api.messages import CheckpointRef, Outcome, ProgressMessage, TrainerState, TuningProgress
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.context import Report, ReportKind
from trainmaster_trainer.ipc.settings import DriverSettings
from trainmaster_trainer.reporting import operator as progress
from trainmaster_trainer.reporting.sinks import Sinks
from trainmaster_trainer.reporting.state import RunState
from trainmaster_trainer.storage.store import Store

from .fake_operator import Operator

CSV = """
from pathlib import Path
from trainmaster_trainer.reporting.trackers.base import Tracker

class Csv(Tracker):
    def __init__(self, path):
        self.path = Path(path)
    @property
    def url(self):
        return f"file://{self.path}"
    def start(self, run):
        return {"run_id": "7"}
    def log(self, metrics, step, time):
        with self.path.open("a") as file:
            file.write(f"{step} {metrics}\\n")
    def finish(self, outcome):
        with self.path.open("a") as file:
            file.write(f"{outcome}\\n")
"""
Begin = Callable[..., "Run"]


class Run:
    """A run with the sinks of its settings."""

    def __init__(self, job: TrainingJob, folder: Path, **settings: Any) -> None:
        self.store, self.run_state = Store(str(folder / "run")), RunState(job, 3)
        self.left: list[str] = []
        base = DriverSettings(
            job_file="", attempt=3, storage_uri="", base_dir=str(folder), scratch=str(folder),
            result_file="", token_file="",
        )  # fmt: skip
        self.sinks = Sinks(
            replace(base, **settings), job, self.run_state, self.store, on_display_gone=lambda: self.left.append("gone")
        )

    def report(self, kind: ReportKind, step: int) -> None:
        self.run_state.report(Report(kind=kind, step=step, total_steps=9, epoch=0, metrics={"train/loss": 0.5}))

    def kept(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.store.get(EVENTS) or b"").splitlines()]


@pytest.fixture
def begin(job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    monkeypatch.setattr(progress, "_LAST_WORD_SECONDS", 0.3)
    return lambda **settings: Run(job, tmp_path, **settings)


@pytest.fixture
def operator() -> Iterator[Operator]:
    operator = Operator()
    yield operator
    operator.shutdown()
    operator.server_close()


def lines_of(descriptor: int) -> list[dict[str, Any]]:
    with os.fdopen(descriptor) as stream:
        return [json.loads(line) for line in stream]


def test_display_plain_lines_without_a_stream(begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    run = begin()
    run.report(ReportKind.STEP, 4)
    run.sinks.finish(run.run_state.ended(Outcome.COMPLETE))
    assert "step 4/9" in capsys.readouterr().out


def test_display_events_as_json_lines(begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    reads, writes = os.pipe()
    run = begin(events_fd=writes)
    run.report(ReportKind.STEP, 4)
    run.sinks.finish(run.run_state.ended(Outcome.COMPLETE))
    run.sinks._stream.close()
    found = lines_of(reads)
    assert [event["event"] for event in found] == ["state", "report", "result"]
    assert found[1]["step"] == 4
    assert "step 4/9" not in capsys.readouterr().out, "there is a display elsewhere"


def test_display_that_is_gone_is_told_and_harms_nothing(begin: Begin) -> None:
    reads, writes = os.pipe()
    run = begin(events_fd=writes)
    os.close(reads)
    run.run_state.to(TrainerState.TRAINING)
    assert run.left == ["gone"]
    run.sinks.finish(run.run_state.ended(Outcome.STOPPED))
    assert run.kept()[-1]["outcome"] == "Stopped", "the other sinks continue"


def test_storage_keeps_events_and_log(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("printed\n")
    run = begin(log_file=str(tmp_path / "log"), pod="digits-3-head")
    run.report(ReportKind.LOADED, 0)
    run.sinks.finish(run.run_state.ended(Outcome.COMPLETE, "trained"))
    assert [(event["attempt"], event["event"]) for event in run.kept()] == [(3, "report"), (3, "result")]
    assert run.kept()[-1]["message"] == "trained"
    assert run.store.get(f"{LOGS}/a3/digits-3-head.log") == b"printed\n"


def newest(operator: Operator, wanted: Callable[[ProgressMessage], bool]) -> ProgressMessage:
    while True:
        message = operator.seen.get(timeout=3)[1]
        if wanted(message):
            return message


def pushing(begin: Begin, operator: Operator, folder: Path) -> Run:
    (folder / "token").write_text("token")
    run = begin(progress_url=operator.url, progress_token=str(folder / "token"))
    operator.seen.get(timeout=5)  # the first one comes by itself; from now on only what wakes it within 5 s
    return run


def test_operator_hears_of_milestones_at_once(begin: Begin, operator: Operator, tmp_path: Path) -> None:
    run = pushing(begin, operator, tmp_path)
    run.report(ReportKind.FIRST_STEP, 1)
    assert newest(operator, lambda message: message.step == 1).state is TrainerState.TRAINING
    run.sinks.finish(run.run_state.ended(Outcome.COMPLETE))


def test_operator_is_not_woken_by_steps(begin: Begin, operator: Operator, tmp_path: Path) -> None:
    run = pushing(begin, operator, tmp_path)
    run.run_state.state = TrainerState.TRAINING  # else the first step is a transition, of which it hears
    for step in range(1, 6):
        run.report(ReportKind.STEP, step)
    run.run_state.searched(TuningProgress(total=4), running=[])  # a validation of a trial
    # that nothing comes can only be seen by waiting; what wakes the push is there after some milliseconds
    with pytest.raises(queue.Empty):
        operator.seen.get(timeout=1)
    run.sinks.finish(run.run_state.ended(Outcome.COMPLETE))
    assert newest(operator, lambda message: message.step == 5)


def test_operator_hears_the_last_checkpoint_before_the_end(begin: Begin, operator: Operator, tmp_path: Path) -> None:
    run = pushing(begin, operator, tmp_path)
    run.run_state.checkpoint = CheckpointRef(step=8, attempt=3, uri="x", time="2026-01-01T00:00:00Z")
    run.sinks.finish(run.run_state.ended(Outcome.COMPLETE))
    assert newest(operator, lambda message: message.checkpoint is not None).checkpoint == run.run_state.checkpoint


def trackers(*paths: Path) -> Sequence[dict[str, Any]]:
    return tuple({"class": "csv_tracker:Csv", "args": {"path": str(path)}} for path in paths)


def test_trackers_log_and_are_in_the_result(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "csv_tracker.py").write_text(CSV)
    run = begin(tracking=trackers(tmp_path / "a.csv", tmp_path / "b.csv"))
    run.report(ReportKind.STEP, 4)
    message = run.sinks.finish(run.run_state.ended(Outcome.COMPLETE))
    assert {tracker.url for tracker in message.trackers} == {f"file://{tmp_path}/{name}.csv" for name in "ab"}
    assert len({tracker.name for tracker in message.trackers}) == 2
    for name in "ab":
        assert (tmp_path / f"{name}.csv").read_text().splitlines()[-1] == "Complete"
    assert len(run.kept()[-1]["trackers"]) == 2, "the result in events.jsonl names them too"


def test_trackers_that_hang_are_given_up_together(begin: Begin, tmp_path: Path) -> None:
    """The timeouts of several dead servers don't add up: all wait before the first expires."""
    run = begin()
    waiting: queue.Queue[int] = queue.Queue()
    both = queue.Queue[None]()

    class Hangs:
        def __init__(self, number: int) -> None:
            self.number = number

        def close(self, message: object) -> None:
            waiting.put(self.number)
            both.get(timeout=10)

    class Opens(Hangs):
        def close(self, message: object) -> None:
            assert waiting.get(timeout=10) == 0
            both.put(None)

    run.sinks._trackers = [Hangs(0), Opens(1)]  # type: ignore[list-item]
    run.sinks.finish(run.run_state.ended(Outcome.COMPLETE))
    assert both.empty()
