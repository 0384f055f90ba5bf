"""`trainmaster tune extend`: more trials, in a file and in the cluster; never fewer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from trainmaster_api.reasons import ConditionType
from trainmaster_cli.cluster.api import jobs_path
from trainmaster_cli.errors import UserError
from trainmaster_trainer.driver.local import LocalRun
from trainmaster_trainer.tuning.trials import RESULT

from tests.factories import Json, change, parse
from tests.unit.cli.cluster.fake_api import FakeApi

from .searching import OPTIONS, SPACE, began, job_with, train, tune, written

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def file_with(text: str) -> None:
    Path("job.yaml").write_text(text)


def test_a_file_gets_the_number_and_its_run_continues(capsys: Captured) -> None:
    job = written(job_with(search={"algorithm": "random"}))
    run = began(job)
    train(run, job)
    text = Path("job.yaml").read_text()
    Path("job.yaml").chmod(0o640)
    assert tune("extend", "job.yaml", "--trials", "6") == 0
    assert capsys.readouterr().out.splitlines() == [
        "job.yaml: spec.tuning.budget.maxTrials 4 -> 6; 4 trials were begun",
        "continue with: trainmaster run job.yaml",
    ]
    assert Path("job.yaml").read_text() == text.replace("maxTrials: 4", "maxTrials: 6")
    assert Path("job.yaml").stat().st_mode & 0o777 == 0o640
    assert [file.name for file in Path().iterdir() if file.name.startswith(".job")] == []
    longer = yaml.safe_load(Path("job.yaml").read_text())
    again = began(longer)
    assert again.uri == run.uri
    study = train(again, longer, trials=2, attempt=2)
    assert [each.number for each in study.trials()] == list(range(6))


def test_a_link_to_a_file_stays_one() -> None:
    written(job_with(), "real.yaml")
    Path("job.yaml").symlink_to("real.yaml")
    assert tune("extend", "job.yaml", "--trials", "9") == 0
    assert Path("job.yaml").is_symlink()
    assert yaml.safe_load(Path("real.yaml").read_text())["spec"]["tuning"]["budget"] == {"maxTrials": 9}


@pytest.mark.parametrize(
    ("trials", "sentence"),
    [
        ("3", "--trials 3 is fewer than the 4 trials of digits-search that were begun, and what was begun stays"),
        ("5", "digits-search has 6 trials already: pass a number above that"),
        ("6", "digits-search has 6 trials already: pass a number above that"),
        ("20000", "with --trials 20000:\njob.yaml:.*maxTrials = 20000: must be"),
    ],
)
def test_what_is_no_extension_is_refused(trials: str, sentence: str) -> None:
    job = written(job_with(budget={"maxTrials": 6}))
    train(began(job), job)
    before = Path("job.yaml").read_bytes()
    with pytest.raises(UserError, match=sentence):
        tune("extend", "job.yaml", "--trials", trials)
    assert Path("job.yaml").read_bytes() == before


def test_a_population_stays_as_it_is() -> None:
    objectives = [{"metric": "val/loss", "reduce": "last"}]
    written(job_with(pruning={"algorithm": "pbt"}, search={"algorithm": "random"}, objectives=objectives))
    with pytest.raises(UserError, match="has a population of 4 trials, which train side by side: its number can't"):
        tune("extend", "job.yaml", "--trials", "6")


def test_a_grid_has_an_end() -> None:
    job = written(job_with(search={"algorithm": "grid"}, warmStart={}, budget={"maxTrials": 2}))
    train(began(job), job, trials=2)
    with pytest.raises(UserError, match="the grid of digits-search has 4 points, so there can't be 5 trials"):
        tune("extend", "job.yaml", "--trials", "5")
    assert tune("extend", "job.yaml", "--trials", "4") == 0


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_search_that_ended_early_is_not_continued_by_more_trials(is_stored: bool) -> None:
    job = written(job_with(objectives=[{"metric": "val/loss", "target": 0.3}]))
    run = began(job)
    study = train(run, job, trials=1)
    if is_stored:
        result = {
            "budget": study.tuning.budget.wire(), "why": study.why_over, "best": None, "front": [],
            "trials": [each.wire() for each in study.trials()],
        }  # fmt: skip
        run.put(RESULT, json.dumps(result).encode())
    with pytest.raises(UserError, match=r"over for another reason than the number of its trials: the target 0\.3 was"):
        tune("extend", "job.yaml", "--trials", "9")


def test_a_changed_file_is_not_extended() -> None:
    job = written(job_with())
    train(began(job), job)
    written(change(job_with(), {"spec.training.model.args.hidden": [64]}))
    with pytest.raises(UserError, match=r"(?s)model\.args\.hidden.*only the search of an unchanged file"):
        tune("extend", "job.yaml", "--trials", "9")


def test_a_budget_that_cannot_be_set_alone() -> None:
    text = yaml.safe_dump(job_with(budget=None), sort_keys=False)
    text = text.replace("budget: null", "budget: *b").replace("  name: digits", "  labels: &b {}\n  name: digits")
    file_with(text)
    with pytest.raises(UserError, match="can't be set without changing something else; set it yourself"):
        tune("extend", "job.yaml", "--trials", "99")


def test_the_file_is_what_run_takes(capsys: Captured) -> None:
    """With other storage the command has it, too."""
    job = written(job_with())
    import argparse

    run = LocalRun(argparse.Namespace(file="job.yaml", **{**OPTIONS, "storage": "else where"}), parse(job))
    run.identify()
    run.note()
    train(run.run, job)
    assert tune("extend", "job.yaml", "--trials", "9", "--storage", "else where") == 0
    assert "continue with: trainmaster run job.yaml --storage 'else where'" in capsys.readouterr().out


def in_two_lines(**more: Any) -> Json:
    job = job_with()
    del job["spec"]["tuning"]
    job["spec"]["hyperparameterSearch"] = {"method": "random", "budget": 4, "space": SPACE, **more}
    return job


def test_a_search_in_two_lines_is_extended(capsys: Captured) -> None:
    """The number is raised where it was written, and the run stays the same."""
    job = written(in_two_lines())
    run = began(job)
    train(run, job)
    assert tune("extend", "job.yaml", "--trials", "6") == 0
    assert "job.yaml: spec.hyperparameterSearch.budget 4 -> 6; 4 trials were begun" in capsys.readouterr().out
    longer = yaml.safe_load(Path("job.yaml").read_text())
    assert longer == in_two_lines(budget=6)
    again = began(longer)
    assert again.uri == run.uri
    assert [each.number for each in train(again, longer, trials=2, attempt=2).trials()] == list(range(6))
    assert tune("best", "job.yaml") == 0
    document = yaml.safe_load(capsys.readouterr().out)
    assert not {"tuning", "hyperparameterSearch"} & document["spec"].keys()
    assert parse(document).spec.tuning is None


def test_a_search_in_two_lines_that_has_changed_is_not_extended() -> None:
    job = written(in_two_lines())
    train(began(job), job)
    written(in_two_lines(method="bayesian"))
    with pytest.raises(UserError, match=r"(?s)tuning\.search\.algorithm: random -> tpe.*only the search of an unchang"):
        tune("extend", "job.yaml", "--trials", "9")


@pytest.mark.parametrize("is_shorthand", [False, True])
def test_a_search_that_is_out_of_hours_gets_more(is_shorthand: bool, capsys: Captured) -> None:
    """Its clock is that of all attempts: an hour of one second."""
    hour = {"maxHours": 1, "maxTrials": 9}
    job = written(in_two_lines(budget="1h") if is_shorthand else job_with(budget=hour))
    run = began(job)
    study = train(run, job, trials=2)
    study._study.set_user_attr("elapsed", 3601.0)
    study._journal.flush()
    if not is_shorthand:
        with pytest.raises(UserError, match=r"budget\.maxHours = 1 are used; more trials would not be run; pass --hou"):
            tune("extend", "job.yaml", "--trials", "12")
    with pytest.raises(UserError, match="digits-search has 1 hours already: pass a number above that with --hours"):
        tune("extend", "job.yaml", "--hours", "1")
    assert tune("extend", "job.yaml", "--hours", "2.5") == 0
    longer = yaml.safe_load(Path("job.yaml").read_text())
    if is_shorthand:
        assert longer == in_two_lines(budget="150m")
        change = "spec.hyperparameterSearch.budget 1h -> 150m"
    else:
        assert longer == job_with(budget={**hour, "maxHours": 2.5})
        change = "spec.tuning.budget.maxHours 1 -> 2.5"
    assert capsys.readouterr().out.splitlines()[0] == f"job.yaml: {change}; 2 trials were begun"
    again = began(longer)
    assert again.uri == run.uri
    assert len(train(again, longer, trials=1, attempt=2).trials()) == 3


def test_trials_and_hours_are_raised_together(capsys: Captured) -> None:
    job = written(job_with(budget={"maxTrials": 4, "maxHours": 1}))
    train(began(job), job)
    assert tune("extend", "job.yaml", "--trials", "6", "--hours", "3") == 0
    assert yaml.safe_load(Path("job.yaml").read_text()) == job_with(budget={"maxTrials": 6, "maxHours": 3})
    assert "spec.tuning.budget.maxTrials 4 -> 6, spec.tuning.budget.maxHours 1 -> 3;" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("budget", "given", "sentence"),
    [
        ({"maxTrials": 4}, ["--hours", "3"], "has no limit of hours that could be raised: use --trials"),
        ({"maxTrials": 4, "maxHours": 1}, ["--hours", "3"], "run; hours alone don't continue it: pass --trials too"),
        ({"maxTrials": 4, "maxHours": 1}, ["--hours", "1e6", "--trials", "9"], r"with --trials 9 --hours 1e\+06:\njob"),
        ({"maxTrials": 4}, [], "pass --trials, --hours or both"),
    ],
)
def test_hours_that_are_no_extension_are_refused(budget: dict[str, int], given: list[str], sentence: str) -> None:
    job = written(job_with(budget=budget))
    train(began(job), job)
    before = Path("job.yaml").read_bytes()
    with pytest.raises(UserError, match=sentence):
        tune("extend", "job.yaml", *given)
    assert Path("job.yaml").read_bytes() == before


def test_a_budget_of_two_lines_stays_in_its_unit() -> None:
    written(in_two_lines(budget="2h"))
    with pytest.raises(UserError, match="ends after 2h, and not after a number of trials: use --hours"):
        tune("extend", "job.yaml", "--trials", "9")


@pytest.mark.parametrize("hours", ["0", "-1", "nan", "inf", "2h"])
def test_what_is_no_number_of_hours(hours: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        tune("extend", "job.yaml", "--hours", hours)
    assert "must be a number of hours above 0" in capsys.readouterr().err


# --- on a cluster ----------------------------------------------------------------------------------------------------


def on_a_cluster(**status: Any) -> FakeApi:
    job = job_with()
    job["metadata"] |= {"namespace": "team", "uid": "u1", "resourceVersion": "7"}
    return FakeApi({**job, "status": status})


COUNTS = {"total": 4, "complete": 2, "pruned": 1, "running": 1}


def test_a_job_on_a_cluster_is_patched(capsys: Captured) -> None:
    api = on_a_cluster(phase="Running", tuning=COUNTS)
    assert tune("extend", "digits-search", "--trials", "6", api=api) == 0
    body = {"spec": {"tuning": {"budget": {"maxTrials": 6}}}}
    assert api.patched == [(f"{jobs_path('team')}/digits-search", body)]
    assert capsys.readouterr().out.splitlines() == [
        "digits-search: spec.tuning.budget.maxTrials 4 -> 6; 4 trials were begun",
        "see them with: trainmaster status digits-search -n team --watch",
    ]


def test_a_search_in_two_lines_is_patched_where_it_was_written() -> None:
    api = FakeApi({**change(in_two_lines(), {"metadata.namespace": "team"}), "status": {"tuning": COUNTS}})
    assert tune("extend", "digits-search", "--trials", "6", api=api) == 0
    assert api.patched == [(f"{jobs_path('team')}/digits-search", {"spec": {"hyperparameterSearch": {"budget": 6}}})]


def test_hours_of_a_job_on_a_cluster_are_patched(capsys: Captured) -> None:
    job = change(job_with(budget={"maxTrials": 4, "maxHours": 1}), {"metadata.namespace": "team"})
    api = FakeApi({**job, "status": {"phase": "Complete", "tuning": COUNTS}})
    assert tune("extend", "digits-search", "--trials", "6", "--hours", "2", api=api) == 0
    body = {"spec": {"tuning": {"budget": {"maxTrials": 6, "maxHours": 2}}}}
    assert api.patched == [(f"{jobs_path('team')}/digits-search", body)]
    assert "budget.maxTrials 4 -> 6, spec.tuning.budget.maxHours 1 -> 2; 4 trials" in capsys.readouterr().out


def test_a_suspended_job_has_to_be_resumed(capsys: Captured) -> None:
    conditions = [{"type": ConditionType.SUSPENDED, "status": "True", "reason": "Suspended"}]
    api = on_a_cluster(phase="Suspended", tuning=COUNTS, conditions=conditions)
    assert tune("extend", "digits-search", "--trials", "6", api=api) == 0
    assert "once it is resumed: trainmaster resume digits-search -n team" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("trials", "sentence"),
    [
        ("3", "fewer than the 4 trials of digits-search that were begun"),
        ("4", "digits-search has 4 trials already"),
        ("20000", "with --trials 20000: spec.tuning.budget.maxTrials = 20000: must be"),
    ],
)
def test_nothing_is_patched_that_is_refused(trials: str, sentence: str) -> None:
    api = on_a_cluster(phase="Complete", tuning=COUNTS)
    with pytest.raises(UserError, match=sentence):
        tune("extend", "digits-search", "--trials", trials, api=api)
    assert api.patched == []


def test_a_failed_job_stays_failed() -> None:
    conditions = [{"type": ConditionType.FAILED, "status": "True", "reason": "UserCodeError"}]
    api = on_a_cluster(phase="Failed", tuning=COUNTS, conditions=conditions)
    with pytest.raises(UserError, match="digits-search has failed, and a failed job stays failed: submit it again"):
        tune("extend", "digits-search", "--trials", "9", api=api)
