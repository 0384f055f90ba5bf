"""A search in its driver, with trials that are curves instead of trainings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from trainmaster_api.messages import Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.validation.validate import validate
from trainmaster_trainer.driver import search as module
from trainmaster_trainer.driver import search_report
from trainmaster_trainer.driver.search import Search
from trainmaster_trainer.errors import ConfigurationError, TrainingError
from trainmaster_trainer.ipc.messages import Leaving, Left
from trainmaster_trainer.ipc.settings import DriverSettings
from trainmaster_trainer.reporting.event import RunEvent
from trainmaster_trainer.reporting.search_table import SearchTable
from trainmaster_trainer.reporting.state import RunState
from trainmaster_trainer.storage.store import Store, open_store
from trainmaster_trainer.tuning.trials import (
    METRICS,
    NUMBER,
    REASON,
    RUN,
    SEGMENT,
    STATE,
    STEP,
    TIME,
    VALUES,
    WAITS,
    TrialEnd,
)

from tests.factories import change, make_job

Trial = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Returns the end of a trial; None: its actor is gone."""


def job_of(gpus: int = 0, **tuning: Any) -> TrainingJob:
    space = {"optimizer.lr": {"min": 0.001, "max": 0.1}}
    job, problems = validate(make_job({
        "metadata.uid": "u", "spec.training.loop": {"duration": "3ep"}, "spec.cluster.workers.gpus": gpus,
        "spec.tracking": [{"mlflow": {}}],
        "spec.tuning": {"space": space, "search": {"algorithm": "random"}, "budget": {"maxTrials": 4}} | tuning,
    }, name="t"))  # fmt: skip
    assert job is not None, problems
    return job


def search_of(
    root: Path, job: TrainingJob, attempt: int = 1, work_dir: str = "", tracking: tuple[dict[str, Any], ...] = ()
) -> Search:
    settings = dataclasses.replace(
        DriverSettings("", attempt, "", "", "", "", "", work_dir=work_dir),
        storage_uri=f"file://{root}", tracking=tracking,
    )  # fmt: skip
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


def test_a_terminal_sees_what_runs_and_what_is_best(tmp_path: Path) -> None:
    """From the driver to the table, as JSON: after each validation its newest value, at the end of a trial the best."""
    search, table, seen = search_of(tmp_path, job_of()), SearchTable(), []

    def listener(event: dict[str, Any]) -> None:
        table.take(RunEvent.read(json.loads(json.dumps(event))))
        seen.append((table.counters, table.draw()))

    search._state.listen(listener)
    search.lead(executing(lambda config: {}))
    rows = [tuple(tuple(column.cells) for column in found.columns) if found else () for _, found in seen]
    lrs = [each.values["optimizer.lr"] for each in search.study.trials()]  # type: ignore[union-attr]
    begins, *moves = rows[:5]
    assert [str(cell) for column in begins for cell in column] == ["0", "0/3", "-", f"{lrs[0]:.4g}"]
    assert [[str(column[0]) for column in row[1:3]] for row in moves[:3]] == [
        [f"{time}/3", f"{lrs[0] + 1 / time:.4f}"] for time in (1, 2, 3)
    ]
    best = min(lrs) + 1 / 3
    assert [str(column[-1]) for column in rows[-3]] == [
        f"best: {lrs.index(min(lrs))}", "3/3", f"{best:.4f}", f"{min(lrs):.4g}"
    ]  # fmt: skip
    assert rows[-2:] == [(), ()], "the search is over, the winner is trained"
    assert seen[-1][0] == "4/4 trials: 4 complete"


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


def test_trial_that_saves_for_its_pod_is_no_lost_one(tmp_path: Path) -> None:
    """However often its pod is drained; and whatever happens to actors that were in it."""
    told: dict[int, int] = {}

    def end(config: dict[str, Any]) -> dict[str, Any] | None:
        told[config[NUMBER]] = told.get(config[NUMBER], 0) + 1
        return {STATE: "Stopped"} if told[config[NUMBER]] <= 5 else {}

    search = search_of(tmp_path, job_of(trial={"retries": 0}))
    search.lead(executing(end))
    assert told == dict.fromkeys(range(4), 6)
    assert [(each.number, str(each.end)) for each in search.study.trials()] == [  # type: ignore[union-attr]
        (number, "Complete") for number in range(4)
    ]


def test_pods_wait_for_the_actors_of_their_trials(tmp_path: Path) -> None:
    class Other:
        def __init__(self, number: int) -> None:
            self.number, self.said = number, []

        def send(self, message: Any) -> None:
            self.said.append(message)

    search, actor, launcher = search_of(tmp_path, job_of(pruning={"algorithm": "asha"})), Other(1), Other(2)
    messages: list[Any] = []

    def execute(search: Search, parallel: int) -> None:
        search.on_join(actor)  # type: ignore[arg-type]
        for _ in range(2):
            search.suggest()
        search._running[0].decided = TrialEnd.PRUNED
        search.on_leaving(launcher, Leaving(pod="w-0", ip=""))  # type: ignore[arg-type]
        messages.extend(actor.said[1:])
        assert not launcher.said
        search.on_message(actor, Left(saved=True, pod="w-0"))  # type: ignore[arg-type]
        search.is_stopping = True

    search.run(execute)
    assert messages == [Leaving(pod="w-0", ip="", trials=[1])], "the other one is over"
    assert launcher.said == [Left(saved=True, pod="w-0")]


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


def test_search_leaves_pictures_and_its_journal_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search_of(tmp_path, job_of(budget={"maxTrials": 3})).lead(executing(lambda config: {}))
    pictures = {file.name: file.read_bytes() for file in (tmp_path / "report").iterdir()}
    assert set(pictures) == {"search-history.png", "search-parallel.png", "search-slices.png"}
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "tuning/study.log")))
    assert len(optuna.load_study(storage=storage, study_name=None).trials) == 3
    drawn: list[int] = []
    monkeypatch.setattr(search_report, "pictures", lambda found: drawn.append(len(found.trials)) or ({}, []))
    search_of(tmp_path, job_of(budget={"maxTrials": 3}), attempt=2).lead(executing(lambda config: {}))
    assert drawn == [], "nothing was found since"
    search_of(tmp_path, job_of(budget={"maxTrials": 9}), attempt=3).lead(executing(lambda config: {}))
    assert drawn == [9]


PICTURES = {"search-history.png", "search-parallel.png", "search-slices.png"}


def pictures_of(root: Path) -> set[str]:
    return {file.name for file in (root / "report").glob("*.png")}


def test_search_that_fails_leaves_pictures_of_the_trials_that_have_ended(tmp_path: Path) -> None:
    """Two trials are complete, then two fail, which is one too many."""
    search = search_of(tmp_path, job_of(budget={"maxTrials": 8, "maxFailedTrials": 1}))
    failed = {STATE: "Failed", REASON: "UserCodeError: ZeroDivisionError"}
    with pytest.raises(TrainingError, match="2 trials have failed"):
        search.lead(executing(lambda config: {} if config[NUMBER] < 2 else failed))
    assert pictures_of(tmp_path) == PICTURES
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "tuning/study.log")))
    assert len(optuna.load_study(storage=storage, study_name=None).trials) == 4
    assert not (tmp_path / "tuning/result.json").exists()


def test_search_whose_hours_end_before_a_trial_is_complete_leaves_pictures(tmp_path: Path) -> None:
    """A trial was pruned: there is no winner, so the search fails, and its picture shows how far it came."""
    search = search_of(tmp_path, job_of(budget={"maxHours": 1}))

    def execute(search: Search, parallel: int) -> None:
        config = search.suggest()
        assert config is not None
        search.report(config[NUMBER], {NUMBER: 0, TIME: 1, METRICS: json.dumps({"val/loss": 0.5})})
        search._running[0].decided = TrialEnd.PRUNED
        search.study._began -= 3601  # type: ignore[union-attr]
        search.ended(0, {}, is_lost=False)

    with pytest.raises(ConfigurationError, match="no trial of the search was completed"):
        search.lead(execute)
    assert search.study.why_over == "budget.maxHours = 1 are used"  # type: ignore[union-attr]
    assert pictures_of(tmp_path) == PICTURES


def test_search_that_fails_without_storage_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unavailable(*given: Any) -> None:
        raise TrainingError("gone", FailureClass.STORAGE_UNAVAILABLE)

    monkeypatch.setattr(search_report, "keep", unavailable)
    with pytest.raises(TrainingError, match="1 trials have failed"):
        search_of(tmp_path, job_of(budget={"maxFailedTrials": 0})).lead(executing(lambda config: {STATE: "Failed"}))
    assert "the pictures of the search can't be stored: gone" in capsys.readouterr().out


@pytest.mark.parametrize("attempts", [1, 2])
def test_only_the_best_trials_keep_their_checkpoints(
    tmp_path: Path, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where an attempt is killed; and what is removed has its end in the journal by then."""
    job, store = job_of(budget={"maxTrials": 6}, keepBest=2), open_store(f"file://{tmp_path}", None, None, {})

    def checked(run: Store, folder: str) -> None:
        journal = "".join(file.read_text() for file in sorted((tmp_path / "tuning").glob("journal-*")))
        assert journal.count('"end":"Complete"') > int(run.root.name)
        delete(run, folder)

    delete = Store.delete_directory
    monkeypatch.setattr(Store, "delete_directory", checked)

    def end(config: dict[str, Any]) -> dict[str, Any]:
        store.put(f"trials/{config[NUMBER]:04d}/checkpoints/a1-step-0000001/manifest.json", b"{}")
        store.put(f"trials/{config[NUMBER]:04d}/metrics.jsonl", b"{}")
        if config[NUMBER] == 3 and attempts == 2 and not (tmp_path / "again").exists():
            (tmp_path / "again").touch()
            raise KeyboardInterrupt
        return {}

    if attempts == 2:
        with pytest.raises(KeyboardInterrupt):
            search_of(tmp_path, job).lead(executing(end))
    search = search_of(tmp_path, job, attempt=attempts)
    search.lead(executing(end))
    trials = search.study.trials()  # type: ignore[union-attr]
    best = sorted(trials, key=lambda each: each.values["optimizer.lr"])[:2]
    assert sorted(path.parent.name for path in (tmp_path / "trials").glob("*/checkpoints")) == sorted(
        f"{each.number:04d}" for each in best
    )
    assert len(list((tmp_path / "trials").glob("*/metrics.jsonl"))) == 6


@pytest.mark.parametrize("code", [{}, {"spec.training.code": {"path": "."}}], ids=["where it is", "in a copy"])
def test_program_of_another_winner_begins_in_an_empty_directory(tmp_path: Path, code: dict[str, Any]) -> None:
    work, run = tmp_path / "work", tmp_path / "run"
    run.mkdir()
    for attempt, trials in ((1, 1), (2, 16)):
        work.mkdir(exist_ok=True)
        (work / "last.pt").write_text("of the winner before")
        job = change(job_of(budget={"maxTrials": trials}).wire(), code)
        search = search_of(run, TrainingJob.model_validate(job), attempt, str(work))
        search.lead(executing(lambda config: {}))
        assert (work / "last.pt").exists() == (attempt == 1 or not code)
    assert json.loads((run / "tuning/final.json").read_text())[NUMBER] != 0


def test_each_attempt_tells_of_all_trials_that_have_ended(tmp_path: Path) -> None:
    """A tracker may not have heard of the last ones before a kill."""
    search_of(tmp_path, job_of(budget={"maxTrials": 2})).lead(executing(lambda config: {}))
    job = job_of(budget={"maxTrials": 4})
    state, told = RunState(job, 2), list[list[int]]()
    state.listen(lambda event: told.append(sorted(state.ended_trials)))
    settings = DriverSettings("", 2, "", "", "", "", "")
    Search(settings, job, Store(str(tmp_path)), state).lead(executing(lambda config: {}))
    assert told[0] == [0, 1]
    assert told[-1] == [0, 1, 2, 3]
    assert all(each.ended >= each.began for each in state.ended_trials.values())  # type: ignore[operator]


@pytest.mark.parametrize("gpus", [0, 2])
def test_gpu_hours_are_said_where_trials_have_gpus(tmp_path: Path, gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of an hour: one is complete, three are pruned after the first of three validations."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    search = search_of(tmp_path, job_of(gpus, finalRun={"enabled": False}))

    def execute(search: Search, parallel: int) -> None:
        while (config := search.suggest()) is not None:
            number, time = config[NUMBER], 0
            is_good = number == 0
            for time in range(1, 4 if is_good else 2):
                search.report(number, {NUMBER: number, TIME: time, METRICS: json.dumps({"val/loss": float(number)})})
            now[0] += 3600
            search._running[number].decided = None if is_good else TrialEnd.PRUNED
            search.ended(number, {STATE: "Complete"}, is_lost=False)

    _, text = search.lead(execute)  # type: ignore[misc]
    found = search.progress()
    result = json.loads((tmp_path / "tuning/result.json").read_text())
    if not gpus:
        assert (found.gpu_hours, found.gpu_hours_saved, result.get("gpuHours")) == (None, None, None)
        assert "GPU" not in text
        return
    assert (found.gpu_hours, found.gpu_hours_saved) == (8.0, 12.0)  # 4 trials, 3 times 2 more hours, with 2 GPUs
    assert result["gpuHours"] == {"used": 8.0, "saved": 12.0}
    assert text.endswith(", 8 GPU-hours, 12 saved by pruning")


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


def test_each_validation_is_told_with_its_step(tmp_path: Path) -> None:
    search, told = search_of(tmp_path, job_of(budget={"maxTrials": 1})), list[dict[str, Any]]()
    search._state.listen(lambda event: told.append(event["validation"]) if event.get("validation") else None)

    def execute(search: Search, parallel: int) -> None:
        config = search.suggest()
        assert config is not None
        for time in (1, 2):
            metrics = {"val/loss": 1 / time, "val/accuracy": 0.5}
            search.report(config[NUMBER], {NUMBER: 0, TIME: time, STEP: 22 * time, METRICS: json.dumps(metrics)})
        search.ended(config[NUMBER], {STATE: "Complete"}, is_lost=False)

    search.lead(execute)
    assert [(each[NUMBER], each[STEP], each[METRICS]) for each in told] == [
        (0, 22, {"val/loss": 1.0, "val/accuracy": 0.5}),
        (0, 44, {"val/loss": 0.5, "val/accuracy": 0.5}),
    ]
    (trial,) = search.study.trials()  # type: ignore[union-attr]
    assert all(each[VALUES] == trial.values for each in told)
