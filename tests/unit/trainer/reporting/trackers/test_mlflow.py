"""MLflow is a view: what arrives there, and that a dead one costs a warning."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.context import Report, ReportKind
from trainmaster_trainer.reporting.state import Event, Hub
from trainmaster_trainer.reporting.trackers import mlflow
from trainmaster_trainer.reporting.trackers.mlflow import RUN_FILE, MlflowTrack, flatten
from trainmaster_trainer.storage.store import Store

DONE = ExitMessage(outcome=Outcome.COMPLETE, step=40, test_metrics={"test/accuracy": 0.98})


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": [1, 2]}, "d": "x"}) == {"a.b": "1", "a.c": "[1, 2]", "d": "x"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "run"))
    store.put("model/model.safetensors", b"weights")
    return store


def attempt(uri: str, job: TrainingJob, store: Store, steps: range, end: ExitMessage) -> list[Event]:
    hub, events = Hub(job, 1), list[Event]()
    hub.listen(events.append)
    one = MlflowTrack(uri, "default/digits", str(Path(store.uri).parent / "artifacts"), job, hub, store)
    hub.listen(one.show)
    for step in steps:
        known = {"train/loss": 1 / step, "val/loss": 9.0}  # the last validation's, until there is another
        hub.report(Report(kind=ReportKind.STEP, step=step, total_steps=40, epoch=0, metrics=known))
    hub.report(Report(kind=ReportKind.VALIDATION, step=steps[-1], total_steps=40, epoch=0, metrics={"val/loss": 0.5}))
    one.close(end)
    return events


def test_one_run_over_two_attempts(tmp_path: Path, job: TrainingJob, store: Store) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    attempt(uri, job, store, range(1, 21), ExitMessage(outcome=Outcome.STOPPED, step=20))
    run_id = json.loads(store.get(RUN_FILE) or b"")["run_id"]
    client = MlflowClient(tracking_uri=uri)
    assert client.get_run(run_id).info.status == "KILLED"
    events = attempt(uri, job, store, range(21, 41), DONE)
    assert [e["run_id"] for e in events if e["event"] == "mlflow"] == [run_id]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.lr"] == str(job.spec.training.optimizer.lr)
    assert run.data.metrics["test/accuracy"] == 0.98
    assert run.data.metrics["val/loss"] == 0.5
    history = client.get_metric_history(run_id, "train/loss")
    assert sorted({m.step for m in history}) == list(range(1, 41))
    validations = client.get_metric_history(run_id, "val/loss")
    assert [(m.step, m.value) for m in validations] == [(20, 0.5), (40, 0.5)], "only where one was made"
    assert [f.path for f in client.list_artifacts(run_id, "model")] == ["model/model.safetensors"]


def test_a_dead_server_costs_one_warning(job: TrainingJob, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    began = time.monotonic()
    events = attempt("http://127.0.0.1:1", job, store, range(1, 41), DONE)
    warnings = [e["message"] for e in events if e["event"] == "warning"]
    assert len(warnings) == 1
    assert "training goes on" in warnings[0]
    assert time.monotonic() - began < 60
    assert store.get(RUN_FILE) is None


class Dying:
    """A client whose server goes away after the first batch and comes back later."""

    def __init__(self) -> None:
        self.metrics: list[Any] = []
        self.calls = 0
        self.back = threading.Event()

    def log_batch(self, run_id: str, metrics: list[Any]) -> None:
        self.calls += 1
        if self.calls > 1 and not self.back.is_set():
            raise ConnectionError("gone")
        self.metrics += metrics

    def log_metric(self, *args: Any, **kwargs: Any) -> None: ...

    def log_artifacts(self, *args: Any) -> None: ...

    def set_terminated(self, *args: Any, **kwargs: Any) -> None: ...


def test_a_server_that_dies_in_between_loses_nothing_that_fits_the_queue(
    job: TrainingJob, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow, "_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(mlflow, "_FLUSH_SECONDS", 0.05)
    hub, events, client = Hub(job, 1), list[Event](), Dying()
    hub.listen(events.append)
    one = MlflowTrack("http://x", "e", "", job, hub, store)
    one._client, one._run_id = client, "r"
    hub.listen(one.show)
    hub.report(Report(kind=ReportKind.STEP, step=1, total_steps=3, epoch=0, metrics={"train/loss": 1.0}))
    while client.calls < 1:
        time.sleep(0.01)
    hub.report(Report(kind=ReportKind.STEP, step=2, total_steps=3, epoch=0, metrics={"train/loss": 2.0}))
    while client.calls < 3:
        time.sleep(0.01)
    client.back.set()
    one.close(DONE)
    assert [m.step for m in client.metrics] == [1, 2]
    assert len([e for e in events if e["event"] == "warning"]) == 1


def test_without_a_step_nothing_is_imported_or_said(job: TrainingJob, store: Store) -> None:
    hub, events = Hub(job, 1), list[Event]()
    hub.listen(events.append)
    one = MlflowTrack("http://127.0.0.1:1", "e", "", job, hub, store)
    one.close(ExitMessage(outcome=Outcome.FAILED))
    assert not events
