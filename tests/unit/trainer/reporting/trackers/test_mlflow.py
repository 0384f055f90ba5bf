"""The MLflow tracker against a real tracking store."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from trainmaster_api.layout import ENVIRONMENT
from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_api.record import AttemptRecord, CodeRecord, EnvironmentRecord
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.tracking import Mlflow, Tracker
from trainmaster_trainer.context import Report, ReportKind
from trainmaster_trainer.reporting.state import Event, RunState
from trainmaster_trainer.reporting.trackers.background import BackgroundTracker, record_path
from trainmaster_trainer.reporting.trackers.base import factory
from trainmaster_trainer.storage.store import Store

DONE = ExitMessage(outcome=Outcome.COMPLETE, step=40, test_metrics={"test/accuracy": 0.98})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "run"))
    store.put("model/model.safetensors", b"weights")
    return store


def attempt(uri: str, job: TrainingJob, store: Store, steps: range, end: ExitMessage) -> list[Event]:
    run_state, events = RunState(job, 1), list[Event]()
    run_state.listen(events.append)
    entry = Tracker(mlflow=Mlflow(uri=uri))
    one = BackgroundTracker("mlflow", factory(entry, Path("/nowhere")), job, 1, run_state, store)
    run_state.listen(one.show)
    for step in steps:
        known = {"train/loss": 1 / step, "val/loss": 9.0}  # the last validation's, until there is another
        run_state.report(Report(kind=ReportKind.STEP, step=step, total_steps=40, epoch=0, metrics=known))
    run_state.report(
        Report(kind=ReportKind.VALIDATION, step=steps[-1], total_steps=40, epoch=0, metrics={"val/loss": 0.5})
    )
    one.close(end)
    return events


def test_one_run_over_two_attempts(
    tmp_path: Path, job: TrainingJob, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    made = AttemptRecord(attempt=1, time="t", code=CodeRecord(commit="b" * 40), world_size=1)
    store.put(ENVIRONMENT, EnvironmentRecord(attempts=[made]).model_dump_json(by_alias=True).encode())
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    attempt(uri, job, store, range(1, 21), ExitMessage(outcome=Outcome.STOPPED, step=20))
    record = json.loads(store.get(record_path("mlflow")) or b"")
    run_id = record["run_id"]
    assert record == {
        "uri": uri, "url": uri, "run_id": run_id, "view": f"mlflow ui --backend-store-uri {uri}",
    }  # fmt: skip
    client = MlflowClient(tracking_uri=uri)
    assert client.get_run(run_id).info.status == "KILLED"
    events = attempt(uri, job, store, range(21, 41), DONE)
    assert [(e["name"], e["run_id"], e["url"]) for e in events if e["event"] == "tracker"] == [("mlflow", run_id, uri)]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.lr"] == str(job.spec.training.optimizer.lr)
    assert run.data.params["workers"] == "2"
    assert run.data.tags["mlflow.source.git.commit"] == "b" * 40
    assert [file.path for file in client.list_artifacts(run_id, "environment")] == ["environment/environment.json"]
    assert run.data.metrics["test/accuracy"] == 0.98
    assert run.data.metrics["val/loss"] == 0.5
    history = client.get_metric_history(run_id, "train/loss")
    assert sorted({m.step for m in history}) == list(range(1, 41))
    validations = client.get_metric_history(run_id, "val/loss")
    assert [(m.step, m.value) for m in validations] == [(20, 0.5), (40, 0.5)], "only where one was made"
    assert [f.path for f in client.list_artifacts(run_id, "model")] == ["model/model.safetensors"]
    assert (tmp_path / "mlflow-artifacts").is_dir()
    assert list((tmp_path / "empty").iterdir()) == [], "nothing goes into the working directory"


def test_mlflow_run_of_an_older_version_is_continued(tmp_path: Path, job: TrainingJob, store: Store) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    attempt(uri, job, store, range(1, 3), ExitMessage(outcome=Outcome.STOPPED, step=2))
    record = json.loads(store.get(record_path("mlflow")) or b"")
    store.delete(record_path("mlflow"))
    store.put("mlflow.json", json.dumps({"uri": uri, "run_id": record["run_id"]}).encode())
    events = attempt(uri, job, store, range(3, 5), DONE)
    assert [e["run_id"] for e in events if e["event"] == "tracker"] == [record["run_id"]]


def test_mlflow_run_deleted_on_the_server_is_made_again(tmp_path: Path, job: TrainingJob, store: Store) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    attempt(uri, job, store, range(1, 3), ExitMessage(outcome=Outcome.STOPPED, step=2))
    store.put(record_path("mlflow"), json.dumps({"uri": uri, "run_id": "0" * 32}).encode())
    (event,) = [e for e in attempt(uri, job, store, range(3, 5), DONE) if e["event"] == "tracker"]
    assert event["run_id"] != "0" * 32


def test_a_dead_server_costs_one_warning(job: TrainingJob, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    events = attempt("http://127.0.0.1:1", job, store, range(1, 41), DONE)
    warnings = [e["message"] for e in events if e["event"] == "warning"]
    assert len(warnings) == 1
    assert "tracker mlflow is unavailable" in warnings[0]
    assert store.get(record_path("mlflow")) is None


def test_the_trainer_names_mlflow_in_one_module() -> None:
    trainer = Path(__file__).parents[5] / "trainer"
    found = subprocess.run(
        ["grep", "-rliE", "mlflow", "--include=*.py", "trainmaster_trainer"],
        cwd=trainer,
        capture_output=True,
        text=True,
    )
    assert found.stdout.split() == ["trainmaster_trainer/reporting/trackers/mlflow.py"]
