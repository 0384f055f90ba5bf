"""`trainmaster tune plan`: what is said before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from trainmaster_cli.main import main

from tests.factories import load_example

ROOT = Path(__file__).parents[4]


def plan(folder: Path, capsys: pytest.CaptureFixture[str], workers: int = 1, **tuning: Any) -> list[str]:
    """Return the page of the example with other fields of its search, without the indentation."""
    job = load_example("search")
    job["spec"]["cluster"]["workers"]["count"] = workers
    job["spec"]["tuning"] |= tuning
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    assert main(["tune", "plan", str(folder / "job.yaml")]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    """Of 8 trials 3.15 are promoted: 1 + 1/2 + 1/3 + 1/4 + 1/5 + 2/6 + 2/7 + 2/8; of 3.15, 1.87."""
    assert main(["tune", "plan", str(ROOT / "examples/search/trainingjob.yaml")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "digits-search: tpe over 2 parameters, seed 1",
        "",
        "  PARAMETER        KIND     VALUES          SCALE   WHEN",
        "  optimizer.lr     float    0.0001 to 0.1   log     always",
        "  data.batchSize   choice   32, 64, 128     -       always",
        "",
        "  objective     val/accuracy, maximize; the best validation of a trial counts",
        "  points        no end of them: optimizer.lr is any number of its range",
        "  trials        8, budget.maxTrials",
        "  in parallel   1; 1 fits: cluster.workers.count is 1, and a trial has 1",
        "  a trial       at most 4 validations in 4 epochs",
        "  pruning       asha: one in 3 is promoted from each rung to the next",
        "  cost          about 4.0 whole trials (16 epochs), 51 % of 8 whole trials (32 epochs) without pruning",
        "  budget        no limit of time; fails with more than 8 failed trials",
        "  final run     the winner for 4ep with 1 worker, then its test and its model; not in the cost above",
        "",
        "  VALIDATION   TRIALS      PROMOTED",
        "  1            8           about 3.2",
        "  3            about 3.2   about 1.9",
        "  expected numbers, as if chance decided; more are promoted where early validations tell the winner",
    ]


def test_a_grid_with_conditions_of_every_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = {
        "optimizer.name": {"values": ["adamw", "sgd"]},
        "optimizer.args.momentum": {"min": 0.5, "max": 0.9, "step": 0.2, "when": {"optimizer.name": ["sgd"]}},
        "model.args.dropout": {"value": 0.1},
    }
    lines = plan(
        tmp_path, capsys, workers=4, space=space, search={"algorithm": "random"}, pruning={"algorithm": "median"},
        budget={"maxParallel": 2, "maxHours": 1.5, "maxFailedTrials": 0},
        warmStart={"points": [{"optimizer.name": "sgd"}]}, finalRun={"enabled": False},
        constraints=["model.args.dropout < 0.5"],
    )  # fmt: skip
    assert "optimizer.args.momentum float 0.5 to 0.9 in steps of 0.2 linear optimizer.name is sgd" in lines
    assert "model.args.dropout constant 0.1 - always" in lines
    for words in [
        "constraint model.args.dropout < 0.5",
        "points 4, of 6 combinations",
        "trials 64, the default; the first is that of warmStart",
        "in parallel 2, budget.maxParallel; 4 fit: cluster.workers.count is 4, and a trial has 1",
        "pruning median, from validation 1 on: a trial ends that is worse than the median of the others",
        "cost less than 64 whole trials (256 epochs): what median saves can't be told before",
        "budget ends after 1.5 h with the best so far; fails with more than 0 failed trials",
        "final run none: finalRun.enabled is false",
    ]:
        assert words in lines


def test_a_grid_is_tried_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = {"data.batchSize": {"values": [32, 64]}, "model.args.dropout": {"values": [0.0, 0.1, 0.2]}}
    lines = plan(tmp_path, capsys, space=space, search={"algorithm": "grid"}, pruning={}, budget={})
    assert "points 6; the grid tries each once" in lines
    assert "trials 6, all of the grid" in lines
    assert "cost at most 6 whole trials (24 epochs)" in lines


def test_hyperband_has_brackets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Optuna's shares for 4 validations with factor 3: ceil(2 * 3 / 2) = 3 and ceil(2 * 1 / 1) = 2 of 5."""
    lines = plan(tmp_path, capsys, pruning={"algorithm": "hyperband"}, budget={"maxTrials": 10})
    assert "BRACKET VALIDATION TRIALS PROMOTED" in lines
    assert any(line.startswith("0 1 6 about") for line in lines)
    assert any(line.startswith("1 3 4 about") for line in lines)


def test_a_population_has_rounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = plan(
        tmp_path, capsys, space={"optimizer.lr": {"min": 0.001, "max": 0.1}}, search={"algorithm": "random"},
        objectives=[{"metric": "val/loss", "reduce": "last"}], pruning={"algorithm": "pbt", "perturbEvery": 2},
        budget={"maxTrials": 5},
    )  # fmt: skip
    pruning = "pruning pbt: of the 5 trials, the worst 2 continue from the checkpoints of the best 2"
    assert f"{pruning}, with changed values, after every 2 validations" in lines
    assert "cost at most 5 whole trials (20 epochs)" in lines
    assert any(line.startswith("final run the winner continues from its own weights") for line in lines)


def test_several_objectives_have_no_winner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objectives = [{"metric": "val/loss", "reduce": "last"}, {"metric": "val/accuracy"}]
    lines = plan(tmp_path, capsys, objectives=objectives, pruning={}, search={"algorithm": "nsga2"})
    assert "objective val/loss, minimize; the last validation of a trial counts" in lines
    assert "final run none: several objectives have a front and no winner" in lines


def test_a_pruner_that_never_decides_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = plan(tmp_path, capsys, pruning={"algorithm": "asha", "minTime": 5})
    assert "never decides: minTime is 5, and a trial has 4 validations; lower minTime" in lines


def test_validations_that_follow_from_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = load_example("search", {"spec.training.loop.duration": "100step", "spec.checkpoint.every": "10step"})
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    assert main(["tune", "plan", str(tmp_path / "job.yaml")]) == 0
    out = capsys.readouterr().out
    assert "follows from the data; pruning.maxTime sets it" in out
    assert "less than 8 whole trials: what asha saves can't be told before" in out


def test_every_problem_is_said_and_nothing_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = load_example("search", {"spec.tuning.budget.maxParallel": 3, "spec.tuning.constraints": ["x < 1"]})
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    assert main(["tune", "plan", str(tmp_path / "job.yaml")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "at most 1: cluster.workers.count = 1, and a trial has 1" in err
    assert 'constraints[0] = "x < 1": has x, which is no parameter of this search' in err


def test_a_constraint_that_cannot_be_computed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = {"data.batchSize": {"values": [32, 64]}, "model.args.activation": {"values": ["relu", "gelu"]}}
    job = load_example("search", {"spec.tuning.space": space})
    job["spec"]["tuning"]["constraints"] = ["model.args.activation < data.batchSize"]
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    assert main(["tune", "plan", str(tmp_path / "job.yaml")]) == 2
    assert "spec.tuning.constraints: can't be computed: " in capsys.readouterr().err


def test_a_job_without_a_search(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "plan", str(ROOT / "examples/digits/trainingjob.yaml")]) == 2
    assert "digits has no search: add spec.tuning" in capsys.readouterr().err


def test_a_search_in_two_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page is that of the search that it is short for."""
    job = load_example("search")
    del job["spec"]["tuning"]
    job["spec"]["hyperparameterSearch"] = {"method": "grid", "budget": 50}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    assert main(["tune", "plan", str(tmp_path / "job.yaml")]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:7] == [
        "digits-search: grid over 4 parameters, seed 0",
        "",
        "PARAMETER KIND VALUES SCALE WHEN",
        "optimizer.lr choice 0.0001, 0.001, 0.01 - always",
        "optimizer.weightDecay choice 0.001, 0.01, 0.1 - always",
        "data.batchSize choice 32, 64, 128 - always",
        "model.args.dropout choice 0.0, 0.25, 0.5 - always",
    ]
    assert (
        "written as hyperparameterSearch: grid, budget 50; the space is the default one, `space` sets another" in lines
    )
    assert {"points 81", "trials 50, its budget"} <= set(lines)
    job["spec"]["hyperparameterSearch"] = {"method": "random", "budget": "90m"}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    assert main(["tune", "plan", str(tmp_path / "job.yaml")]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "trials as many as end within its hours, at most 10,000" in lines
    assert "cost what runs within its hours" in lines
    assert "budget ends after 1.5 h with the best so far; fails with more than 8 failed trials" in lines
