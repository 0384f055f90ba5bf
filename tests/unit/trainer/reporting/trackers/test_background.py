"""No tracker can harm a run: one that dies, hangs, lies or doesn't exist costs a warning and a bounded time."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.layout import CODE_DIFF, ENVIRONMENT, FINGERPRINT
from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_api.record import AttemptRecord, CodeRecord, EnvironmentRecord
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.tracking import Tracker as Entry
from trainmaster_trainer.context import Report, ReportKind
from trainmaster_trainer.data.fingerprint import of_value
from trainmaster_trainer.reporting.state import Event, RunState
from trainmaster_trainer.reporting.trackers import background
from trainmaster_trainer.reporting.trackers.background import BackgroundTracker, code_params, read_record, record_path
from trainmaster_trainer.reporting.trackers.base import TrackedRun, Tracker, factory, flatten
from trainmaster_trainer.storage.store import Store

DONE = ExitMessage(outcome=Outcome.COMPLETE, step=3, test_metrics={"test/accuracy": 0.98})


def test_flatten_nested_parameters() -> None:
    assert flatten({"a": {"b": 1, "c": [1, 2]}, "d": "x"}) == {"a.b": "1", "a.c": "[1, 2]", "d": "x"}


class Recorded(Tracker):
    """Remembers what it is told; `fail` is called before each method and may raise or wait."""

    def __init__(self, fail: Callable[[str], None] = lambda name: None) -> None:
        self.fail, self.calls, self.logged = fail, list[str](), list[tuple[int, dict[str, float]]]()
        self.run: TrackedRun | None = None

    def _note(self, name: str) -> None:
        self.calls.append(name)
        self.fail(name)

    @property
    def url(self) -> str:
        return "https://tracker/1"

    def start(self, run: TrackedRun) -> dict[str, str]:
        self.run = run
        self._note("start")
        return {"run_id": "7"}

    def log(self, metrics: Mapping[str, float], step: int, time: float) -> None:
        self._note("log")
        self.logged.append((step, dict(metrics)))

    def flush(self) -> None:
        self._note("flush")

    def log_artifacts(self, folder: Path, name: str) -> None:
        self._note(f"artifacts {name} {sorted(path.name for path in folder.iterdir())}")

    def finish(self, outcome: Outcome) -> None:
        self._note(f"finish {outcome}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "run"))
    store.put("model/data.json", b"{}")
    return store


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_AGAIN_SECONDS", 0.02)
    monkeypatch.setattr(background, "_FLUSH_SECONDS", 0.02)


class Run:
    """A run with one tracker."""

    def __init__(self, job: TrainingJob, store: Store, made: Callable[[], Tracker]) -> None:
        self.run_state, self.events = RunState(job, 1), list[Event]()
        self.run_state.listen(self.events.append)
        self.one = BackgroundTracker("mine", made, job, 1, self.run_state, store)
        self.run_state.listen(self.one.show)

    def step(self, step: int, **metrics: float) -> None:
        self.run_state.report(
            Report(kind=ReportKind.STEP, step=step, total_steps=3, epoch=0, metrics=metrics or {"train/loss": 1.0})
        )

    def warnings(self) -> list[str]:
        return [event["message"] for event in self.events if event["event"] == "warning"]


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_run_from_start_to_end(job: TrainingJob, store: Store) -> None:
    tracker = Recorded()
    store.put(FINGERPRINT, of_value("sklearn:digits", "scikit-learn 1.9.0, digits").model_dump_json().encode())
    run = Run(job, store, lambda: tracker)
    run.step(1)
    run.step(2, **{"train/loss": 0.5, "val/loss": 9.0, "train/bad": float("nan")})
    run.one.close(DONE)
    assert tracker.run is not None
    assert (tracker.run.job, tracker.run.uid, tracker.run.attempt) == ("digits", "0f3c9a1b", 1)
    assert tracker.run.params["optimizer.name"] == "adamw"
    digest = hashlib.sha256(b"scikit-learn 1.9.0, digits").hexdigest()
    assert tracker.run.params["data.fingerprint"] == digest[:12]
    assert tracker.run.kept == {}
    assert tracker.logged == [(1, {"train/loss": 1.0}), (2, {"train/loss": 0.5}), (3, {"test/accuracy": 0.98})]
    assert tracker.calls[-2:] == ["artifacts model ['data.json']", "finish Complete"]
    assert run.run_state.ended(Outcome.COMPLETE).trackers == run.run_state.progress().trackers
    assert run.run_state.progress().trackers[0].wire() == {"name": "mine", "url": "https://tracker/1", "runId": "7"}
    assert run.warnings() == []


def test_trackers_get_the_record_of_the_environment(job: TrainingJob, store: Store) -> None:
    code = CodeRecord(sha256="a" * 64, commit="b" * 40, dirty=False)
    attempt = AttemptRecord(attempt=1, time="t", code=code, image="trainer:1", world_size=1)
    store.put(ENVIRONMENT, EnvironmentRecord(attempts=[attempt]).model_dump_json(by_alias=True).encode())
    store.put(CODE_DIFF, b"-a")
    tracker = Recorded()
    run = Run(job, store, lambda: tracker)
    run.step(1)
    run.one.close(ExitMessage(outcome=Outcome.FAILED))
    assert tracker.run is not None
    found = {key: value for key, value in tracker.run.params.items() if key.startswith(("code.", "image"))}
    assert found == {
        "code.archive": "a" * 64, "code.commit": "b" * 40, "code.dirty": "false", "image": "trainer:1",
    }  # fmt: skip
    assert tracker.calls[-2:] == ["artifacts environment ['code.diff', 'environment.json']", "finish Failed"]
    store.put(ENVIRONMENT, b"[]")
    assert code_params(store) == {}


def test_tracker_gets_what_it_kept_in_the_next_attempt(job: TrainingJob, store: Store) -> None:
    for kept in ({}, {"run_id": "7", "url": "https://tracker/1"}):
        tracker = Recorded()
        run = Run(job, store, lambda tracker=tracker: tracker)  # type: ignore[misc]
        run.step(1)
        run.one.close(ExitMessage(outcome=Outcome.STOPPED))
        assert tracker.run is not None
        assert tracker.run.kept == kept


def test_a_record_that_cannot_be_read_is_none(store: Store) -> None:
    for content in (b"", b"{", b"[1]", b"7"):
        store.put(record_path("mine"), content)
        assert read_record(store, "mine") == {}


def test_tracker_dead_server_loses_nothing_queued(job: TrainingJob, store: Store) -> None:
    is_away = threading.Event()

    def fail(name: str) -> None:
        if is_away.is_set():
            raise ConnectionError("gone\nsecond line")

    tracker = Recorded(fail)
    run = Run(job, store, lambda: tracker)
    run.step(1)
    until(lambda: "flush" in tracker.calls)
    is_away.set()
    run.step(2)
    until(run.warnings)
    run.step(3)
    is_away.clear()
    run.one.close(DONE)
    assert [step for step, _ in tracker.logged] == [1, 2, 3, 3]
    assert run.warnings() == ["tracker mine is unavailable (ConnectionError: gone); training continues"]


@pytest.mark.parametrize("method", ["start", "log", "flush", "artifacts", "finish"])
def test_tracker_that_hangs_is_given_up(job: TrainingJob, store: Store, method: str) -> None:
    hang = threading.Event()

    def fail(name: str) -> None:
        if name.startswith(method):
            hang.wait(60)

    tracker = Recorded(fail)
    tracker.finish_seconds = 0.2
    run = Run(job, store, lambda: tracker)
    run.step(1)
    until(lambda: tracker.calls)
    began = time.monotonic()
    run.one.close(DONE)
    assert time.monotonic() - began < 10
    hang.set()
    assert len(run.warnings()) == 1
    assert "no answer for 0 s" in run.warnings()[0]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"class": "no_such_module:X"}, "module no_such_module was not found; install it, or put it next to"),
        ({"class": "json:NoSuchClass"}, "module json has no NoSuchClass"),
        ({"class": "json:JSONDecoder", "args": {"colour": 1}}, "unexpected keyword argument"),
    ],
)
def test_tracker_class_that_is_none_costs_one_warning(
    job: TrainingJob, store: Store, tmp_path: Path, entry: dict[str, Any], sentence: str
) -> None:
    made = Entry.model_validate(entry)
    run = Run(job, store, lambda: factory(made, tmp_path)())
    run.step(1)
    run.one.close(DONE)
    assert len(run.warnings()) == 1
    assert sentence in run.warnings()[0]


def test_tracker_is_not_made_without_a_step(job: TrainingJob, store: Store) -> None:
    made: list[int] = []
    run = Run(job, store, lambda: made.append(1) or Recorded())  # type: ignore[func-returns-value]
    run.one.close(ExitMessage(outcome=Outcome.FAILED))
    assert (made, run.events) == ([], [])


def test_metrics_are_a_queue_with_an_end(job: TrainingJob, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_QUEUE", 3)
    hold = threading.Event()
    tracker = Recorded(lambda name: hold.wait(30) if name == "start" else None)  # type: ignore[arg-type,return-value]
    run = Run(job, store, lambda: tracker)
    for step in range(1, 9):
        run.step(step)
    hold.set()
    run.one.close(ExitMessage(outcome=Outcome.STOPPED))
    assert [step for step, _ in tracker.logged] == [6, 7, 8]


OWN = """
from pathlib import Path

from trainmaster_trainer.reporting.trackers.base import Tracker


class Lines(Tracker):
    def __init__(self, path):
        self.path = Path(path)

    @property
    def url(self):
        return f"file://{self.path}"

    def start(self, run):
        if not run.kept:
            self.path.write_text("begun\\n")
        return {"run_id": self.path.name}

    def log(self, metrics, step, time):
        with self.path.open("a") as file:
            file.writelines(f"{step} {name} {value}\\n" for name, value in metrics.items())

    def log_artifacts(self, folder, name):
        pass

    def finish(self, outcome):
        pass
"""


def test_a_tracker_of_the_user_s_own_is_one_file(job: TrainingJob, store: Store, tmp_path: Path) -> None:
    (tmp_path / "own_tracker.py").write_text(OWN)
    path = tmp_path / "metrics.txt"
    entry = Entry.model_validate({"class": "own_tracker:Lines", "args": {"path": str(path)}})
    factory(entry, tmp_path)
    assert sys.path.index(str(tmp_path)) == len(sys.path) - 1, "a user's queue.py must not take the place of Python's"
    for steps in ((1, 2), (3,)):
        run = Run(job, store, factory(entry, tmp_path))
        for step in steps:
            run.step(step, **{"train/loss": step / 2})
        run.one.close(ExitMessage(outcome=Outcome.STOPPED))
        assert run.warnings() == []
        assert run.run_state.progress().trackers[0].url == f"file://{path}"
    assert path.read_text().splitlines() == ["begun", "1 train/loss 0.5", "2 train/loss 1.0", "3 train/loss 1.5"]
    assert json.loads(store.get(record_path("mine")) or b"")["run_id"] == "metrics.txt"
