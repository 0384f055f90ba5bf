"""A search in its driver, with trials that are curves instead of trainings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.messages import Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.validation.validate import validate
from trainmaster_trainer.driver.search import Search
from trainmaster_trainer.errors import ConfigurationError, TrainingError
from trainmaster_trainer.ipc.settings import DriverSettings
from trainmaster_trainer.reporting.state import RunState
from trainmaster_trainer.storage.store import open_store
from trainmaster_trainer.tuning.trials import METRICS, NUMBER, REASON, RUN, SEGMENT, STATE, TIME, VALUES, WAITS

from tests.factories import make_job

Trial = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Returns the end of a trial; None: its actor is gone."""


def job_of(**tuning: Any) -> TrainingJob:
    space = {"optimizer.lr": {"min": 0.001, "max": 0.1}}
    job, problems = validate(make_job({
        "metadata.uid": "u", "spec.training.loop": {"duration": "3ep"},
        "spec.tracking": [{"mlflow": {}}],
        "spec.tuning": {"space": space, "search": {"algorithm": "random"}, "budget": {"maxTrials": 4}} | tuning,
    }, name="t"))  # fmt: skip
    assert job is not None, problems
    return job


def search_of(root: Path, job: TrainingJob, attempt: int = 1, tracking: tuple[dict[str, Any], ...] = ()) -> Search:
    settings = dataclasses.replace(
        DriverSettings("", attempt, "", "", "", "", ""), storage_uri=f"file://{root}", tracking=tracking
    )
    return Search(settings, job, open_store(f"file://{root}", None, None, {}), RunState(job, attempt))


def executing(end: Trial, moves: bool = True) -> Callable[[Search, int], None]:
    """What has trials run: one after another, three validations each."""

    def execute(search: Search, parallel: int) -> None:
        while (config := search.suggest()) is not None:
            number, result = config[NUMBER], end(config)
            if moves:
                search.moved(number)
            if result is not None and STATE not in result:
                for time in range(1, 4):
                    metrics = json.dumps({"val/loss": config[VALUES]["optimizer.lr"] + 1 / time})
                    if search.report(number, {NUMBER: number, TIME: time, METRICS: metrics}):
                        break
                else:
                    result = {STATE: "Complete"}
            search.ended(number, result, is_lost=result is None)

    return execute


def test_winner_is_the_job_with_its_values(tmp_path: Path) -> None:
    search = search_of(tmp_path, job_of())
    found = search.lead(executing(lambda config: {}))
    assert isinstance(found, TrainingJob)
    trials = search.study.trials()  # type: ignore[union-attr]
    least = min(trials, key=lambda each: each.values["optimizer.lr"])
    assert found.spec.training.optimizer.lr == least.values["optimizer.lr"]
    assert found.spec.tuning is None
    result = json.loads((tmp_path / "tuning/result.json").read_text())
    assert result["best"]["number"] == least.number
    assert [each["state"] for each in result["trials"]] == ["Complete"] * 4


def test_no_final_run_ends_with_the_search(tmp_path: Path) -> None:
    search = search_of(tmp_path, job_of(finalRun={"enabled": False}))
    outcome, text = search.lead(executing(lambda config: {}))  # type: ignore[misc]
    assert outcome is Outcome.COMPLETE
    assert text.startswith("4/4 trials, best val/loss=")


def test_lost_actors_are_counted_once_the_trial_has_moved(tmp_path: Path) -> None:
    losses: dict[int, int] = {}

    def end(config: dict[str, Any]) -> dict[str, Any] | None:
        losses[config[NUMBER]] = losses.get(config[NUMBER], 0) + 1
        return None if config[NUMBER] == 1 or losses[config[NUMBER]] == 1 else {}

    search = search_of(tmp_path, job_of(trial={"retries": 2}))
    search.lead(executing(end))
    assert losses == {0: 2, 1: 3, 2: 2, 3: 2}
    states = {each.number: (str(each.end), each.reason) for each in search.study.trials()}  # type: ignore[union-attr]
    assert states[1] == ("Failed", "its processes were lost 3 times")
    assert {states[number][0] for number in (0, 2, 3)} == {"Complete"}


def test_actors_that_are_gone_before_a_trial_begins_are_no_failure(tmp_path: Path) -> None:
    left = [10]

    def end(config: dict[str, Any]) -> dict[str, Any] | None:
        left[0] -= 1
        return None if left[0] >= 0 else {}

    search = search_of(tmp_path, job_of(trial={"retries": 0}))
    search.lead(executing(end, moves=False))
    assert {str(each.end) for each in search.study.trials()} == {"Complete"}  # type: ignore[union-attr]


def test_too_many_failed_trials_fail_the_search(tmp_path: Path) -> None:
    search = search_of(tmp_path, job_of(budget={"maxTrials": 4, "maxFailedTrials": 1}))
    failed = {STATE: "Failed", REASON: "UserCodeError: rank 0: ZeroDivisionError"}
    with pytest.raises(
        TrainingError, match=r"2 trials have failed, .*; trial 0: UserCodeError: rank 0: Zero"
    ) as raised:
        search.lead(executing(lambda config: failed))
    assert raised.value.failure_class is FailureClass.USER_CODE_ERROR
    assert not (tmp_path / "tuning/result.json").exists()


def test_no_complete_trial_is_said_with_the_first_reason(tmp_path: Path) -> None:
    search = search_of(tmp_path, job_of())
    with pytest.raises(ConfigurationError, match="no trial of the search was completed; the first of them: NonFinite"):
        search.lead(executing(lambda config: {STATE: "Diverged", REASON: "NonFiniteLoss: step 3"}))


def test_stop_leaves_its_trial_to_the_next_attempt(tmp_path: Path) -> None:
    search = search_of(tmp_path, job_of())

    def end(config: dict[str, Any]) -> dict[str, Any]:
        search.stop()
        return {STATE: "Stopped"}

    assert search.lead(executing(end)) == (Outcome.STOPPED, "the trials have saved and stopped")
    later = search_of(tmp_path, job_of(), attempt=2)
    numbers: list[int] = []
    later.lead(executing(lambda config: numbers.append(config[NUMBER]) or {}))  # type: ignore[func-returns-value]
    assert numbers == [0, 1, 2, 3]


def test_another_winner_has_no_checkpoints_of_the_former(tmp_path: Path) -> None:
    search_of(tmp_path, job_of(budget={"maxTrials": 1})).lead(executing(lambda config: {}))
    for file in ("checkpoints/a1-step-0000001/x", "model/data.json", "LATEST", "BEST"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    same = search_of(tmp_path, job_of(budget={"maxTrials": 1}), attempt=2)
    same.lead(executing(lambda config: {}))
    assert (tmp_path / "model/data.json").exists()
    more = search_of(tmp_path, job_of(budget={"maxTrials": 16}), attempt=3)
    more.lead(executing(lambda config: {}))
    assert json.loads((tmp_path / "tuning/final.json").read_text())[NUMBER] != 0
    assert not any((tmp_path / file).exists() for file in ("checkpoints", "model/data.json", "LATEST", "BEST"))


# -- populations ----------------------------------------------------------------------------------------------------
PBT: dict[str, Any] = {
    "objectives": [{"metric": "val/loss", "reduce": "last"}],
    "search": {"algorithm": "random"},
    "pruning": {"algorithm": "pbt"},
    "budget": {"maxTrials": 4},
}


def in_rounds(search: Search, parallel: int) -> None:
    """Run one round of a trial after another; each leaves a checkpoint."""
    while (config := search.suggest()) is not None:
        number, segment = config[NUMBER], config[SEGMENT]
        search._store.put(f"{config[RUN]}/checkpoints/a1-step-0000001/x", json.dumps(segment).encode())
        time = segment["until"]
        metrics = json.dumps({"val/loss": config[VALUES]["optimizer.lr"]})
        assert not search.report(number, {NUMBER: number, TIME: time, METRICS: metrics})
        search.ended(number, {STATE: "Complete" if time == 3 else "Paused"}, is_lost=False)


def test_winner_of_a_population_continues_from_its_own_weights(tmp_path: Path) -> None:
    search = search_of(tmp_path, job_of(**PBT))
    found = search.lead(in_rounds)
    assert isinstance(found, TrainingJob)
    best = search.study.best()  # type: ignore[union-attr]
    assert best is not None
    assert found.spec.run.resume_from == f"{tmp_path}/default/t/u/trials/{best.number:04d}/round-0003"
    assert found.spec.training.optimizer.lr == best.values["optimizer.lr"]
    result = json.loads((tmp_path / "tuning/result.json").read_text())
    assert [len(each["rounds"]) for each in result["trials"]] == [2] * 4
    assert [each["values"] for each in result["trials"]] == [each["rounds"][-1]["values"] for each in result["trials"]]


def test_rounds_begin_with_the_checkpoints_of_the_round_before(tmp_path: Path) -> None:
    search = search_of(tmp_path, job_of(**PBT))
    search.lead(in_rounds)
    trials = search.study.trials()  # type: ignore[union-attr]
    exploited = [(each.number, at, how.source) for each in trials for at, how in enumerate(each.rounds, 2)]
    assert any(number != source for number, _, source in exploited)
    for number, at, source in exploited:
        file = tmp_path / f"trials/{number:04d}/round-{at:04d}/checkpoints/a1-step-0000001/x"
        if at == 2:  # of the three rounds, the first is needed no more when the third begins
            assert not (tmp_path / f"trials/{number:04d}/round-0001/checkpoints").exists()
        segment = json.loads(file.read_text())
        expected = {"until": at, "origin": f"trials/{source:04d}/round-{at - 1:04d}", "isOther": source != number}
        assert segment == expected


def test_actors_wait_for_the_end_of_a_round(tmp_path: Path) -> None:
    class Actor:
        number = 1
        said: list[Any] = []

        def send(self, message: Any) -> None:
            self.said.append(message)

    search, actor = search_of(tmp_path, job_of(**PBT)), Actor()
    numbers: list[int] = []

    def two_at_a_time(search: Search, parallel: int) -> None:
        search.on_join(actor)  # type: ignore[arg-type]
        first = [search.suggest() for _ in range(4)]
        for config in first[:3]:
            search.report(config[NUMBER], {NUMBER: config[NUMBER], TIME: 1, METRICS: json.dumps({"val/loss": 1.0})})
            search.ended(config[NUMBER], {STATE: "Paused"}, is_lost=False)
        waits = search.suggest()
        assert waits is not None
        assert waits[WAITS] == actor.said[-1].count + 1
        search.report(3, {NUMBER: 3, TIME: 1, METRICS: json.dumps({"val/loss": 1.0})})
        search.ended(3, {STATE: "Paused"}, is_lost=False)
        assert waits[WAITS] == actor.said[-1].count  # it is woken
        search.ended(waits[NUMBER], {}, is_lost=False)
        numbers.extend(config[NUMBER] for config in (search.suggest() for _ in range(4)) if config is not None)
        search.is_stopping = True

    search.run(two_at_a_time)
    assert numbers == [0, 1, 2, 3]


# -- what is known before --------------------------------------------------------------------------------------------
def test_search_learns_from_another_one_and_from_mlflow(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    first = search_of(tmp_path / "first", job_of())
    first.lead(executing(lambda config: {}))
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("old", artifact_location=str(tmp_path))
    for lr, losses, status in ((0.05, (3.0, 1.0, 2.0), "FINISHED"), (5.0, (1.0,), "FINISHED"), (0.01, (1.0,), "FAILED"),
                               (0.02, (), "FINISHED")):  # fmt: skip
        run = client.create_run(experiment).info.run_id
        client.log_param(run, "optimizer.lr", str(lr))
        for step, loss in enumerate(losses):
            client.log_metric(run, "val/loss", loss, step=step)
        client.set_terminated(run, status)
    sources = [{"run": str(tmp_path / "first"), "topK": 3}, {"mlflowExperiment": "old"}]
    job = job_of(warmStart={"from": sources}, search={"algorithm": "tpe"})
    tracking = ({"mlflow": {"uri": uri}},)
    search, said = search_of(tmp_path / "second", job, tracking=tracking), list[str]()
    search._state.listen(lambda event: said.append(str(event.get("message"))))
    search.lead(executing(lambda config: {}))
    assert said[:2] == [
        f"3 trials of {tmp_path}/first are known; 1 left out: beyond topK = 3",
        "1 trial of experiment old is known; 1 left out: with another optimizer.lr; 1 left out: without a result",
    ]
    added = [json.loads(line) for file in (tmp_path / "second/tuning").glob("journal-*") for line in
             file.read_text().splitlines() if '"earlier"' in line]  # fmt: skip
    assert len(added) == 4
    mine = next(each for each in added if not each["user_attrs"]["earlier"].startswith("trial "))
    assert mine["params"] == {"optimizer.lr": 0.05}
    assert mine["value"] == 1.0
    missing = job_of(warmStart={"from": [{"mlflowExperiment": "new"}]}, search={"algorithm": "tpe"})
    with pytest.raises(
        ConfigurationError, match=r"warmStart.from\[0\]: .* has no experiment new; there are Default, old"
    ):
        search_of(tmp_path / "third", missing, tracking=tracking).lead(executing(lambda config: {}))
