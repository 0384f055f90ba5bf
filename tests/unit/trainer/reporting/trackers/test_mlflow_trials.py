"""The trials of a search in a real tracking store: nested runs, each of them once."""

from __future__ import annotations

import dataclasses
import json
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
from trainmaster_trainer.reporting.trackers.base import TrackedRun, TrackedTrial, TrackedValidation, factory
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
    assert second.data.metrics == {"val/loss": 0.9, "objective/val/loss": 0.9, "seconds": 2.5, "validations": 3.0}
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


class Attempt:
    """An attempt whose trials are validated while it runs."""

    def __init__(self, uri: str, job: TrainingJob, store: Store) -> None:
        self.run_state, self.warnings = RunState(job, 1), list[str]()
        self.run_state.listen(lambda event: self.warnings.append(str(event)) if event["event"] == "warning" else None)
        entry = factory(Tracker(mlflow=Mlflow(uri=uri)), Path("/nowhere"))
        self.one = BackgroundTracker("mlflow", entry, job, 1, self.run_state, store)
        self.run_state.listen(self.one.show)

    def validated(self, number: int, step: int, loss: float, lr: float = 0.1) -> None:
        """Tell of a validation, as the driver of a search does."""
        metrics = {"val/loss": loss, "val/accuracy": 1 - loss}
        found = {"number": number, "step": step, "metrics": metrics, "values": {"optimizer.lr": lr}, "began": 50.0}
        self.run_state.searched(TuningProgress(total=8), validation=json.loads(json.dumps(found)))

    def ended(self, trial: TrialRecord) -> None:
        self.run_state.trials_ended([trial])
        self.run_state.searched(TuningProgress(total=8, complete=1), "a trial")

    def close(self, end: ExitMessage) -> None:
        self.one.close(end)
        assert self.warnings == []


def nested(uri: str) -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    runs = client.search_runs([experiment.experiment_id])
    return {run.info.run_name: run for run in runs if run.info.run_name.startswith("trial-")}


def history(uri: str, run: Any, metric: str = "val/loss") -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    found = MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, metric)
    return [(each.step, each.value) for each in found]


def test_each_validation_is_there_once_with_its_step(tmp_path: Path, job: TrainingJob) -> None:
    """Trial 0 is stopped after a step that isn't in its checkpoint, and repeats it; trial 1 is killed with everything.

    Of equal steps the one that was logged first stays: a repeated one is the same to the bit.
    """
    uri, store = f"sqlite:///{tmp_path / 'mlflow.db'}", Store(str(tmp_path / "run"))
    first = Attempt(uri, job, store)
    for step in (22, 44, 66):
        first.validated(0, step, 1 / step)
        first.validated(1, step, 2 / step)
    first.validated(1, 66, 7.0)  # its rank was lost: it goes back to its checkpoint within the attempt
    first.close(STOPPED)
    found = nested(uri)
    assert {run.data.tags["trainmaster.state"] for run in found.values()} == {"Stopped"}
    assert {run.info.status for run in found.values()} == {"KILLED"}
    assert found["trial-0000"].data.params == {"optimizer.lr": "0.1"}
    assert found["trial-0000"].info.start_time == 50_000

    second = Attempt(uri, job, store)
    for step in (44, 66, 88):
        second.validated(0, step, 1 / step if step > 66 else 9.0)
    second.ended(dataclasses.replace(TRIALS[0], values={"optimizer.lr": 0.1}, objectives=(1 / 88,)))
    second.validated(1, 88, math.nan)
    second.close(DONE)
    found = nested(uri)
    assert history(uri, found["trial-0000"]) == [(step, 1 / step) for step in (22, 44, 66, 88)]
    assert history(uri, found["trial-0000"], "val/accuracy") == [(step, 1 - 1 / step) for step in (22, 44, 66, 88)]
    assert history(uri, found["trial-0001"]) == [(step, 2 / step) for step in (22, 44, 66)], "nan is no value there"
    complete, open_one = (found[name] for name in ("trial-0000", "trial-0001"))
    assert (complete.info.status, complete.data.tags["trainmaster.state"]) == ("FINISHED", "Complete")
    assert complete.data.metrics["val/loss"] == complete.data.metrics["objective/val/loss"] == 1 / 88
    assert (open_one.info.status, open_one.data.tags["trainmaster.state"]) == ("KILLED", "Stopped")


def test_killed_before_its_end_was_told(tmp_path: Path) -> None:
    """The server shows the trial as running; the next attempt is told of its end alone."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def started(kept: dict[str, str]) -> tuple[Any, dict[str, str]]:
        tracker = factory(Tracker(mlflow=Mlflow(uri=uri)), Path("/nowhere"))()
        return tracker, tracker.start(TrackedRun("default", "digits", "0f3c9a1b", 1, "/runs", {}, kept))

    killed, kept = started({})
    for step, loss in ((22, 0.75), (44, 0.5)):
        killed.log_validation(TrackedValidation(0, step, {"val/loss": loss}, {"optimizer.lr": "0.1"}, 50.0, 60.0))
    killed.flush()
    assert nested(uri)["trial-0000"].info.status == "RUNNING"
    later, _ = started(kept)
    later.log_trial(
        TrackedTrial(0, "Pruned", {"optimizer.lr": "0.1"}, {"val/loss": 0.5}, {"val/loss": 0.5}, 50, 70, False)
    )
    later.finish(Outcome.COMPLETE)
    (run,) = nested(uri).values()
    assert history(uri, run) == [(22, 0.75), (44, 0.5)]
    assert (run.info.status, run.data.tags["trainmaster.state"]) == ("KILLED", "Pruned")
    assert history(uri, run, "objective/val/loss") == [(0, 0.5)]
