"""`trainmaster tune trials` and `best`: of a file's last run here, and of a job of a cluster."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from trainmaster_api.tuning.space import axes_of
from trainmaster_api.validation.validate import validate
from trainmaster_cli.errors import UserError
from trainmaster_trainer.storage.store import Store, open_store
from trainmaster_trainer.tuning.journal import Journal
from trainmaster_trainer.tuning.study import Study
from trainmaster_trainer.tuning.trials import RESULT, TrialEnd

from tests.factories import Json, change, parse
from tests.unit.cli.cluster.fake_api import FakeApi

from .searching import LRS, SPACE, began, job_with, train, tune, written

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(output: str) -> list[list[str]]:
    return [line.split() for line in output.partition("\n\n")[0].splitlines()]


def kept(store: Store, job: Json, study: Any) -> None:
    """Store the result as the driver does."""
    result = {
        "budget": study.tuning.budget.wire(), "why": study.why_over, "best": study.best().wire(),
        "front": [each.wire() for each in study.front()], "trials": [each.wire() for each in study.trials()],
    }  # fmt: skip
    store.put(RESULT, json.dumps(result).encode())


# --- trials ----------------------------------------------------------------------------------------------------------


def test_trials_of_a_search_that_is_not_over(capsys: Captured) -> None:
    """At a loss of |lr - 0.01| + 1/4 the order is 0.01, 0.005, 0.02, 0.04."""
    job = written(job_with())
    store = began(job)
    study = train(store, job, trials=2)
    asked = study.ask()
    assert asked is not None
    study.report(asked.number, 1, {"val/loss": 3.0})
    assert tune("trials", "job.yaml") == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "NUMBER   END          VALIDATIONS   val/loss   optimizer.lr   SECONDS   REASON",
        "0        Complete     4             0.28       0.04           4.0       -",
        "1        Complete     4             0.25       0.01           4.0       -",
        "2        Unfinished   1             3          0.02           -         -",
        "",
        "digits-search: 2 of 4 trials have ended (2 Complete, 1 Unfinished)",
        "best: trial 1: val/loss 0.25 with optimizer.lr 0.01; as a job: trainmaster tune best job.yaml",
    ]


def test_trials_are_read_while_the_search_runs_and_nothing_is_written(folder: Path) -> None:
    """A reader that claimed the run would fence the driver off."""
    job = written(job_with())
    store = began(job)
    study = train(store, job, trials=2)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert tune("trials", "job.yaml") == tune("best", "job.yaml") == 0
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    trial = study.ask()
    assert trial is not None
    study.tell(trial.number, TrialEnd.FAILED, reason="ValueError: x")  # it still may


def test_trials_by_metric_with_their_reasons(capsys: Captured) -> None:
    job = written(job_with(budget={"maxTrials": 6}))
    store = began(job)
    study = train(store, job)
    failed = study.ask()
    assert failed is not None
    study.tell(failed.number, TrialEnd.FAILED, reason="ValueError: a\n  b", seconds=2)
    assert tune("trials", "job.yaml", "--sort", "metric") == 0
    out = capsys.readouterr().out
    assert [row[4] for row in rows(out)[1:5]] == ["0.01", "0.005", "0.02", "0.04"]
    assert rows(out)[5][:4] == ["4", "Failed", "0", "-"]
    assert rows(out)[5][5:] == ["2.0", "ValueError:", "a", "b"]


def test_sorting_follows_the_goal(capsys: Captured) -> None:
    """The accuracy of these trials is their rate."""
    job = written(job_with(objectives=[{"metric": "val/accuracy"}]))
    train(began(job), job)
    assert tune("trials", "job.yaml", "--sort", "metric") == 0
    assert [row[3] for row in rows(capsys.readouterr().out)[1:]] == ["0.04", "0.02", "0.01", "0.005"]


def test_trials_for_programs(capsys: Captured) -> None:
    job = written(job_with())
    train(began(job), job)
    assert tune("trials", "job.yaml", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["objectives"] == [{"metric": "val/loss", "goal": "minimize"}]
    assert (found["best"], found["total"], found["why"]) == (1, 4, "all 4 trials have been run")
    assert [each["values"]["optimizer.lr"] for each in found["trials"]] == LRS
    assert {each["state"] for each in found["trials"]} == {"Complete"}


def test_a_result_needs_no_journal_and_no_optuna(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    job = written(job_with())
    store = began(job)
    kept(store, job, train(store, job))
    assert tune("trials", "job.yaml") == 0
    from_result = capsys.readouterr().out
    store.delete(RESULT)
    assert tune("trials", "job.yaml") == 0
    assert capsys.readouterr().out == from_result
    kept(store, job, train(store, job, trials=0))
    store.delete(*(name for name, _ in store.list("tuning") if "journal" in name))
    for name in ("optuna", "trainmaster_trainer.tuning.study"):
        monkeypatch.setitem(sys.modules, name, None)
    assert tune("trials", "job.yaml") == 0
    assert capsys.readouterr().out == from_result


def test_a_search_that_was_extended_is_read_from_its_journal(capsys: Captured) -> None:
    job = written(job_with(budget={"maxTrials": 2}))
    store = began(job)
    kept(store, job, train(store, job, trials=2))
    more = written(job_with(budget={"maxTrials": 4}))
    train(store, more, trials=1, attempt=2)
    assert tune("trials", "job.yaml") == 0
    assert "digits-search: 3 of 4 trials have ended (3 Complete)" in capsys.readouterr().out


def test_workers_of_the_command_line_are_no_change(capsys: Captured) -> None:
    job = written(job_with())
    train(began(job, workers=2), job)
    assert tune("best", "job.yaml") == 0
    assert capsys.readouterr().err == ""


def test_no_search_was_run() -> None:
    written(job_with())
    with pytest.raises(UserError, match=r"no search of digits-search has been run from here .*: trainmaster run"):
        tune("trials", "job.yaml")
    began(job_with())
    with pytest.raises(UserError, match="no search of digits-search"):
        tune("trials", "job.yaml")


def test_an_invalid_file_has_its_problems_printed(capsys: Captured) -> None:
    written(job_with(constraints=["y < 1"]))
    assert tune("trials", "job.yaml") == 2
    assert "which is no parameter of this search" in capsys.readouterr().err


def test_a_damaged_journal_is_a_sentence() -> None:
    job = written(job_with())
    store = began(job)
    train(store, job, trials=1)
    store.put("tuning/journal-000001-000000000.jsonl", b"{}\n{")
    with pytest.raises(UserError, match="line 2 of the search's journal is damaged"):
        tune("trials", "job.yaml")


@pytest.mark.parametrize("option", ["--namespace", "--context"])
def test_options_of_a_cluster_are_refused_with_a_file(option: str) -> None:
    with pytest.raises(UserError, match=f"{option} is for names of jobs in a cluster, and job.yaml is a file"):
        tune("trials", "job.yaml", option, "x")


# --- best ------------------------------------------------------------------------------------------------------------


def test_best_is_the_file_with_the_winner_s_values(capsys: Captured) -> None:
    job = written(job_with())
    train(began(job), job)
    assert tune("best", "job.yaml") == 0
    out = capsys.readouterr().out
    assert out.startswith("# digits-search, trial 1: val/loss 0.25 with optimizer.lr 0.01\napiVersion:")
    found = yaml.safe_load(out)
    parsed, problems = validate(found)
    assert parsed is not None, problems
    assert parsed.spec.training.optimizer.lr == 0.01
    expected = change(job_with(), {"metadata.name": "digits-search-best"})
    expected["spec"]["training"]["optimizer"] = {"name": "adamw", "lr": 0.01}
    del expected["spec"]["tuning"]
    assert found == expected


def test_another_trial_can_be_chosen(capsys: Captured) -> None:
    job = written(job_with())
    store = began(job)
    study = train(store, job, trials=2)
    trial = study.ask()
    assert trial is not None
    study.tell(trial.number, TrialEnd.DIVERGED)
    assert tune("best", "job.yaml", "--trial", "2") == 0
    out = capsys.readouterr().out
    assert "# it is not complete: Diverged after 0 validations\n" in out
    assert "# the search isn't over; digits-search: 3 of 4 trials have ended (2 Complete, 1 Diverged)\n" in out
    found = yaml.safe_load(out)
    assert found["metadata"]["name"] == "digits-search-trial-2"
    assert found["spec"]["training"]["optimizer"]["lr"] == 0.02
    with pytest.raises(UserError, match="there is no trial 7; there are 0 to 2"):
        tune("best", "job.yaml", "--trial", "7")


def test_best_of_a_file_that_was_changed_is_what_was_searched(capsys: Captured) -> None:
    job = written(job_with())
    train(began(job), job)
    written(change(job_with(), {"spec.training.model.args.hidden": [64], "spec.training.loop.duration": "6ep"}))
    assert tune("best", "job.yaml") == 0
    out, err = capsys.readouterr()
    training = yaml.safe_load(out)["spec"]["training"]
    assert training["model"]["args"]["hidden"] == [32]
    assert training["loop"]["duration"] == "4ep"
    assert "job.yaml has changed since the last run of digits-search:" in err
    assert "training.model.args.hidden" in err


def test_a_name_that_is_searched_keeps_what_its_trial_had(capsys: Captured) -> None:
    """A rate belongs to the template's optimizer, which isn't named there; it stays with trials of the same one."""
    space = {"optimizer.name": {"values": ["adamw", "sgd"]}}
    points = [{"optimizer.name": "sgd"}, {"optimizer.name": "adamw"}]
    job = job_with(space=space, warmStart={"points": points}, budget={"maxTrials": 2})
    job["spec"]["training"]["optimizer"] = {"name": "adamw", "lr": 0.03}
    train(began(written(job)), job, trials=2)
    rates = {}
    for number in ("0", "1"):
        assert tune("best", "job.yaml", "--trial", number) == 0
        optimizer = yaml.safe_load(capsys.readouterr().out)["spec"]["training"]["optimizer"]
        rates[optimizer["name"]] = optimizer.get("lr")
    assert rates["adamw"] == 0.03
    assert rates["sgd"] != 0.03


def trained_in_rounds(store: Store, job: Json) -> Study:
    """A population of which each trial is validated four times, a round each; a high rate is the worse one."""
    parsed = parse(job)
    assert parsed.spec.tuning is not None
    study = Study(parsed.spec.tuning, axes_of(parsed.spec), Journal(store, 1), 4)
    while (trial := study.ask()) is not None:
        study.report(trial.number, trial.round, {"val/loss": trial.values["optimizer.lr"]})
        study.tell(trial.number, TrialEnd.COMPLETE if trial.round == 4 else TrialEnd.PAUSED, seconds=1)
    return study


def test_best_of_a_population_says_that_its_values_changed(capsys: Captured) -> None:
    """The winner as it ended: its last values, and where its own weights are, which they alone wouldn't give."""
    job = written(job_with(
        objectives=[{"metric": "val/loss", "reduce": "last"}],
        search={"algorithm": "random"}, pruning={"algorithm": "pbt"},
        space={"optimizer.lr": {"min": 0.001, "max": 0.1, "scale": "log"}}, warmStart={}, budget={"maxTrials": 4},
    ))  # fmt: skip
    trials = trained_in_rounds(began(job), job).trials()
    least = min(trials, key=lambda each: (each.objectives[0], each.number))
    assert tune("best", "job.yaml") == 0
    out = capsys.readouterr().out
    heading = [line for line in out.splitlines() if line.startswith("#")]
    number, rate = least.number, least.values["optimizer.lr"]
    assert heading == [
        f"# digits-search, trial {number}: val/loss {rate:.4g} with optimizer.lr {rate:.4g}",
        "# its values changed after each of 3 rounds: trained from the start with these, it is another model; "
        f"run.resumeFrom continues from its own weights, trials/{number:04d}/round-0004 in the search's run",
    ]
    found, problems = validate(yaml.safe_load(out))
    assert found is not None, problems
    assert (found.metadata.name, found.spec.tuning) == ("digits-search-best", None)
    assert found.spec.training.optimizer.lr == rate == least.rounds[-1].values["optimizer.lr"]


def test_nothing_is_complete_yet() -> None:
    job = written(job_with())
    store = began(job)
    study = train(store, job, trials=0)
    study.ask()
    with pytest.raises(UserError, match="no trial is complete yet; digits-search: 0 of 4 trials have ended"):
        tune("best", "job.yaml")


def test_of_several_objectives_one_is_chosen(capsys: Captured) -> None:
    """Loss is best at 0.01, accuracy grows with the rate: 0.005 alone is worse than another in both."""
    job = written(
        job_with(objectives=[{"metric": "val/loss"}, {"metric": "val/accuracy"}], search={"algorithm": "nsga2"})
    )
    train(began(job), job)
    assert tune("best", "job.yaml") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [row[0] for row in rows(err)[1:]] == ["1", "2", "0"]
    assert "choose: trainmaster tune best job.yaml --trial NUMBER" in err
    assert tune("best", "job.yaml", "--trial", "2") == 0
    assert yaml.safe_load(capsys.readouterr().out)["spec"]["training"]["optimizer"]["lr"] == 0.02
    assert tune("trials", "job.yaml") == 0
    assert "front: 0, 1, 2; as a job: trainmaster tune best job.yaml --trial NUMBER" in capsys.readouterr().out


# --- on a cluster ----------------------------------------------------------------------------------------------------


def on_a_cluster(folder: Path, trials: int = 4) -> tuple[FakeApi, Store]:
    job = job_with()
    store = open_store(f"{folder}/runs", None, "", {})
    train(store, job, trials=trials)
    job["metadata"] |= {
        "namespace": "team", "uid": "u1", "generation": 2, "resourceVersion": "7", "labels": {"a": "b"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "x"},
        "managedFields": [],
    }  # fmt: skip
    return FakeApi({**job, "status": {"runUri": f"{folder}/runs", "phase": "Running"}}), store


def test_trials_of_a_job_on_a_cluster(folder: Path, capsys: Captured) -> None:
    api, store = on_a_cluster(folder, trials=3)
    assert tune("trials", "digits-search", "-n", "team", api=api) == 0
    out = capsys.readouterr().out
    assert "digits-search: 3 of 4 trials have ended" in out
    assert out.endswith("as a job: trainmaster tune best digits-search -n team\n")
    assert store.get("FENCE") == b"1"
    Journal(store, 1).flush()


def test_best_of_a_job_on_a_cluster_can_be_applied(folder: Path, capsys: Captured) -> None:
    api, _ = on_a_cluster(folder)
    assert tune("best", "digits-search", api=api) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert found["metadata"] == {
        "name": "digits-search-best", "namespace": "team", "labels": {"a": "b"}, "annotations": {"mine": "x"},
    }  # fmt: skip
    assert found["spec"]["training"]["optimizer"]["lr"] == 0.01
    assert validate(found)[1] == []


def test_a_job_without_trials_or_without_a_search(folder: Path) -> None:
    api, store = on_a_cluster(folder)
    store.delete_directory("tuning")
    with pytest.raises(UserError, match="the search of digits-search has no trials yet; see `trainmaster status"):
        tune("trials", "digits-search", api=api)
    (raw,) = api.objects.values()
    del raw["spec"]["tuning"]
    with pytest.raises(UserError, match="digits-search has no search"):
        tune("trials", "digits-search", api=api)
    with pytest.raises(UserError, match="--storage is for files"):
        tune("trials", "digits-search", "--storage", "x", api=api)


def test_a_journal_without_its_reader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api, _ = on_a_cluster(folder)
    monkeypatch.setitem(sys.modules, "optuna.storages.journal", None)
    for name in ("trainmaster_trainer.tuning.journal", "trainmaster_trainer.tuning.study"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match=r"isn't over, and its journal needs .*: pip install 'trainmaster\[trainer\]'"):
        tune("trials", "digits-search", api=api)


def test_the_space_is_the_table_s_columns(capsys: Captured) -> None:
    job = written(job_with(space={**SPACE, "data.batchSize": {"values": [32, 64], "when": {"optimizer.lr": [0.01]}}}))
    train(began(job), job)
    assert tune("trials", "job.yaml") == 0
    table = rows(capsys.readouterr().out)
    assert table[0][4:6] == ["optimizer.lr", "data.batchSize"]
    assert [row[5] == "-" for row in table[1:]] == [True, False, True, True]
