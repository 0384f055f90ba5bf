"""The trials of a search in a real tracking store: nested runs, each of them once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.layout import FINGERPRINT
from trainmaster_api.messages import ExitMessage, Outcome, TuningProgress
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.tracking import Mlflow, Tracker
from trainmaster_api.validation.validate import validate
from trainmaster_trainer.data.fingerprint import of_value
from trainmaster_trainer.reporting.state import RunState
from trainmaster_trainer.reporting.trackers import mlflow as module
from trainmaster_trainer.reporting.trackers.background import BackgroundTracker, parameters
from trainmaster_trainer.reporting.trackers.base import factory
from trainmaster_trainer.storage.store import Store
from trainmaster_trainer.tuning.trials import TrialEnd, TrialRecord

from tests.factories import make_job

STOPPED, DONE = ExitMessage(outcome=Outcome.STOPPED), ExitMessage(outcome=Outcome.COMPLETE)
ENDS = [(TrialEnd.COMPLETE, 0.5), (TrialEnd.PRUNED, 0.9), (TrialEnd.COMPLETE, 0.25), (TrialEnd.DIVERGED, math.nan)]
TRIALS = [
    TrialRecord(number, {"optimizer.lr": 10.0**-number, "width": 8}, end, (value,), 3, "", 2.5, 100.0 + number, 110.0)
    for number, (end, value) in enumerate(ENDS)
]


@pytest.fixture
def job() -> TrainingJob:
    space = {"optimizer.lr": {"min": 1e-5, "max": 1.0}, "model.args.hidden": {"values": [[8], [16]]}}
    found, problems = validate(make_job({"metadata.uid": "0f3c9a1b", "spec.tuning": {"space": space}}, name="digits"))
    assert found is not None, problems
    return found


def attempt(uri: str, job: TrainingJob, store: Store, trials: list[TrialRecord], end: ExitMessage) -> list[str]:
    """Run an attempt that is told of trials; return its warnings."""
    run_state, warnings = RunState(job, 1), list[str]()
    run_state.listen(lambda event: warnings.append(event["message"]) if event["event"] == "warning" else None)
    one = BackgroundTracker(
        "mlflow", factory(Tracker(mlflow=Mlflow(uri=uri)), Path("/nowhere")), job, 1, run_state, store
    )
    run_state.listen(one.show)
    for trial in trials:
        run_state.trials_ended([trial])
        best = 2 if trial.number >= 2 else 0
        run_state.searched(TuningProgress(total=8, complete=trial.number + 1, best=0.5, best_trial=best), "a trial")
    one.close(end)
    return warnings


def test_each_trial_is_a_nested_run_and_there_once(
    tmp_path: Path, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes away while a trial is recorded, then the job is killed; the search begins again and is longer."""
    from mlflow import MlflowClient

    monkeypatch.setattr(module, "_PAGE", 2)  # of those that are there
    uri, store = f"sqlite:///{tmp_path / 'mlflow.db'}", Store(str(tmp_path / "run"))
    store.put(f"trials/0000/{FINGERPRINT}", of_value("sklearn:digits", "digits").model_dump_json().encode())
    closed = MlflowClient.set_terminated

    def fail(self: Any, run_id: str, *given: Any, **more: Any) -> None:
        if self.get_run(run_id).data.tags.get("trainmaster.trial") == "1":
            raise ConnectionError("gone")
        closed(self, run_id, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", fail)
        assert "ConnectionError: gone" in attempt(uri, job, store, TRIALS[:2], STOPPED)[0]
    for trials, end in ((TRIALS[:3], STOPPED), (TRIALS, DONE)):
        assert attempt(uri, job, store, trials, end) == []
    client = MlflowClient(tracking_uri=uri)
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    found = list(client.search_runs([experiment.experiment_id]))
    names = ["digits-0f3c9a1b", "trial-0000", "trial-0001", "trial-0002", "trial-0003"]
    assert sorted(run.info.run_name for run in found) == names
    runs = {run.info.run_name: run for run in found}
    parent = runs.pop("digits-0f3c9a1b")
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["trainmaster.best_trial"] == "2"
    assert parent.data.params["data.fingerprint"]
    states = {run.data.tags["trainmaster.trial"]: run.data.tags["trainmaster.state"] for run in runs.values()}
    assert states == {"0": "Complete", "1": "Pruned", "2": "Complete", "3": "Diverged"}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert [runs[f"trial-000{n}"].info.status for n in range(4)] == ["FINISHED", "KILLED", "FINISHED", "FAILED"]
    second = runs["trial-0001"]
    assert second.data.params == {"optimizer.lr": "0.1", "width": "8"}
    assert second.data.metrics == {"val/loss": 0.9, "seconds": 2.5, "validations": 3.0}
    assert len(client.get_metric_history(second.info.run_id, "val/loss")) == 1
    assert (second.info.start_time, second.info.end_time) == (101_000, 110_000)
    assert "val/loss" not in runs["trial-0003"].data.metrics


def test_parameters_of_a_search_are_those_that_its_trials_share(job: TrainingJob) -> None:
    found = parameters(job)
    assert found["data.source"] == "sklearn:digits"
    assert found["tuning.space.optimizer.lr.min"] == "1e-05"
    assert not {"optimizer.lr", "model.args.hidden"} & set(found)
    assert "optimizer.name" in found
    assert not [key for key in found if key.startswith(("tuning.budget", "tuning.keepBest"))]
