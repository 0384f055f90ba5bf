"""Problems of a `hyperparameterSearch` are said where its user has written it."""

from __future__ import annotations

from typing import Any

import pytest
from trainmaster_api.validation.validate import validate

from tests.factories import Changes
from tests.unit.api.samples import SCRIPT, job

LR = {"optimizer.lr": {"min": 0.001, "max": 0.1}}


def problems(*changes: Changes, **search: Any) -> list[str]:
    written = {key: value for key, value in {"method": "random", "budget": 5, **search}.items() if value is not None}
    return [str(each) for each in validate(job({"spec.hyperparameterSearch": written}, *changes))[1]]


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        ({"method": "tpe"}, 'method = "tpe": must be one of grid, random, bayesian'),
        ({"budget": None}, "budget: is required: a number of trials or a time such as 50, 2h, 90m"),
        ({"budget": "2d"}, 'budget = "2d": must be a number of trials or a time such as 50, 2h, 90m'),
        ({"budget": 0}, 'budget = "0": must be a number of trials or a time such as 50, 2h, 90m'),
        ({"budget": 2.5}, "budget = 2.5: must be a number of trials or a time such as 50, 2h, 90m"),
        ({"budget": 20_000}, "budget = 20000: must be at most 10000 trials"),
        ({"budget": "100001h"}, 'budget = "100001h": must be at most 100000h'),
        ({"space": {}}, "space = {}: must be a mapping with at least 1 entry"),
        ({"space": {"optimizer.rate": {"min": 1, "max": 2}}}, "space.optimizer.rate: there is no field spec.training."),
        ({"space": {"optimizer.lr": {"min": 0.1, "max": 1000}}}, "space.optimizer.lr.max = 1000"),
        ({"space": {"optimizer.lr": {"min": 1}}}, "space.optimizer.lr: needs both min and max"),
        ({"space": {"optimizer.lr": {"value": 1}}}, "space: has constants only"),
        (
            {"space": {**LR, "data.batchSize": {"values": [32, 64], "when": {"optimizer.lr": [5]}}}},
            "space.data.batchSize.when.optimizer.lr: has 5, which optimizer.lr never is",
        ),
        (
            {"method": "grid", "space": {"optimizer.lr": {"min": 0.1, "max": 1000}}},
            "space.optimizer.lr: must be a number above 0 and at most 100",
        ),
        (
            {
                "method": "grid",
                "space": {
                    "optimizer.name": {"values": ["adamw", "sgd"]},
                    "optimizer.args.momentum": {"values": [0.5, 0.9], "when": {"optimizer.name": ["sgd"]}},
                },
            },
            'method = "grid": grid has no conditions, but optimizer.args.momentum has `when`; use bayesian or random',
        ),
        ({"goal": "maximize"}, 'goal = "maximize": is the wrong way: val/loss is better when it is lower; remove it'),
        ({"metric": "loss"}, 'metric = "loss": must be a string such as val/loss'),
        ({"trials": 5}, "trials = 5: unknown field"),
    ],
)
def test_problems_are_where_they_were_written(search: dict[str, Any], sentence: str) -> None:
    found = problems(**search)
    assert len(found) == 1, found
    assert found[0].startswith(f"spec.hyperparameterSearch.{sentence}"), found


def test_own_program_says_its_goal() -> None:
    script: Changes = {"spec.training.code": {"path": "."}, "spec.training.script.parameters": {"lr": 0.1}}
    assert problems(SCRIPT, script, metric="val/score") == [
        "spec.hyperparameterSearch.goal: is required: what val/score is, only your program knows; minimize or maximize"
    ]
    assert problems(SCRIPT, script, metric="val/score", goal="maximize") == []


def test_all_problems_at_once() -> None:
    found = problems({"spec.run.retries.max": -1}, method="tpe", space={"optimizer.rate": {"value": 3}})
    assert [each.partition(" ")[0] for each in found] == ["spec.hyperparameterSearch.method", "spec.run.retries.max"]


def test_nothing_is_said_of_a_search_while_its_training_is_wrong() -> None:
    (only,) = problems(SCRIPT, {"spec.training.script.parameters": 3})
    assert only.startswith("spec.training.script.parameters = 3")
