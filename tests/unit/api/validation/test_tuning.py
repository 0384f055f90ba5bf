"""Searches that can't be: each with its sentence."""

from __future__ import annotations

from typing import Any

import pytest
from trainmaster_api.validation.validate import validate

from tests.factories import load_example

LR = {"optimizer.lr": {"min": 0.001, "max": 0.1, "scale": "log"}}
TWO = {**LR, "optimizer.weightDecay": {"min": 0.0, "max": 0.1}}


def problems(tuning: dict[str, Any], **training: Any) -> list[str]:
    job = load_example("digits")
    job["spec"]["training"]["model"] = {"name": "mlp"}
    job["spec"]["training"] |= training
    job["spec"]["tuning"] = tuning
    return [str(each) for each in validate(job)[1]]


def test_good_searches():
    assert not problems({"space": LR})
    assert not problems({"space": TWO, "search": {"algorithm": "cmaes"}, "pruning": {"algorithm": "asha"}})
    assert not problems(
        {
            "space": {**TWO, "data.batchSize": {"values": [32, 64]}},
            "constraints": ["data.batchSize * optimizer.lr <= 4"],
            "budget": {"maxTrials": 3},
        }
    )
    assert not problems(
        {
            "space": LR,
            "objectives": [{"metric": "val/loss"}, {"metric": "val/accuracy"}],
            "search": {"algorithm": "nsga2"},
        }
    )


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (
            {"optimizer.lr": {"min": 1, "max": 0.1}},
            "optimizer.lr: has min 1 and max 0.1: min must be below max; for one value use `value`",
        ),
        (
            {"optimizer.lr": {"min": 0.1}},
            "optimizer.lr: needs both min and max",
        ),
        (
            {"optimizer.lr": {"max": 0.1}},
            "optimizer.lr: needs both min and max",
        ),
        (
            {"optimizer.lr": {"min": 0, "max": 0.1, "scale": "log"}},
            "optimizer.lr: has scale log and min 0: min must be above 0",
        ),
        (
            {"optimizer.lr": {"values": [0.1], "step": 1}},
            "optimizer.lr: has step, which belongs to a range: remove it, or give min and max",
        ),
        (
            {"optimizer.lr": {"values": [0.1, 0.2, 0.1]}},
            "optimizer.lr: has 0.1 twice in values",
        ),
        (
            {"optimizer.lr": {"min": 0.1, "max": 0.2, "step": 5}},
            "optimizer.lr: has step 5: it must be above 0 and at most max - min = 0.1",
        ),
        (
            {"optimizer.rate": {"min": 0.1, "max": 0.2}},
            "optimizer.rate: there is no field spec.training.optimizer.rate",
        ),
        (
            {"rate": {"value": 1}},
            "rate: is no field of spec.training, and there is no code of your own that could take it",
        ),
        (
            {"data.batchSize": {"min": 8, "max": 64, "type": "float"}},
            "data.batchSize: has type float, but spec.training.data.batchSize takes whole numbers",
        ),
        (
            {"data.batchSize": {"min": 8.5, "max": 64}},
            "data.batchSize: takes whole numbers: min, max and step must be whole",
        ),
        (
            {"optimizer.name": {"min": 1, "max": 2}},
            "optimizer.name: is a range, but spec.training.optimizer.name takes no number; list `values`",
        ),
        (
            {"data.split.test": {"min": 0.1, "max": 0.2}},
            "data.split.test: can't be searched: trials that are validated on different rows can't be compared",
        ),
        (
            {"loop.duration": {"values": ["3ep"]}},
            "loop.duration: can't be searched: `pruning` decides how long a trial is",
        ),
        (
            {"optimizer.lr": {"min": 0.1, "max": 1000}},
            "optimizer.lr.max = 1000.0: must be a number above 0 and at most 100",
        ),
        (
            {"data.batchSize": {"values": [32, 33]}},
            "data.batchSize.values[1] = 33: is not a multiple of",
        ),
        (
            {"optimizer.name": {"values": ["adamw", "adam"]}},
            'optimizer.name.values[1] = "adam": unknown optimizer; known are adamw, ',
        ),
        (
            {"optimizer.lr": {"value": 0.1}},
            "space: has constants only: there is nothing to search",
        ),
        (
            {**LR, "data.batchSize": {"values": [32, 64], "when": {"optimizer.lrr": [1]}}},
            "data.batchSize.when.optimizer.lrr: is no parameter of this search; there are optimizer.lr, data.batchSize",
        ),
        (
            {**LR, "data.batchSize": {"values": [32, 64], "when": {"optimizer.lr": [5]}}},
            "data.batchSize.when.optimizer.lr: has 5, which optimizer.lr never is",
        ),
        (
            {
                "optimizer.lr": {"values": [1, 2], "when": {"data.batchSize": [32]}},
                "data.batchSize": {"values": [32], "when": {"optimizer.lr": [1]}},
            },
            "space: `when` of optimizer.lr, data.batchSize depend on each other",
        ),
    ],
)
def test_space_that_cannot_be(space, sentence):
    assert any(
        f"spec.tuning.space.{sentence}" in each or f"spec.tuning.{sentence}" in each
        for each in problems({"space": space})
    ), problems({"space": space})


def test_own_arguments_of_whole_numbers_say_their_type():
    own = {"model": {"class": "nets:Net"}}
    assert problems({"space": {"drop": {"min": 0, "max": 1}}}, **own) == [
        "spec.tuning.space.drop: may be whole or decimal numbers, as Kubernetes stores 1.0 as 1: "
        "add `type: int` or `type: float`"
    ]
    assert not problems({"space": {"drop": {"min": 0, "max": 9}}}, **own)


@pytest.mark.parametrize(
    ("tuning", "sentence"),
    [
        (
            {"search": {"algorithm": "grid"}},
            "space.optimizer.lr: has no end of values: a grid needs `values`, or a `step`",
        ),
        (
            {"search": {"algorithm": "cmaes"}},
            'search.algorithm = "cmaes": cmaes needs at least two parameters; use tpe or random',
        ),
        (
            {"search": {"algorithm": "random", "startupTrials": 3}},
            "search.startupTrials = 3: random has none: it doesn't learn from trials; remove it",
        ),
        (
            {"search": {"startupTrials": 8}, "budget": {"maxTrials": 8}},
            "search.startupTrials = 8: must be below budget.maxTrials = 8, or nothing is ever learnt",
        ),
        (
            {"pruning": {"algorithm": "asha", "minTime": 5, "maxTime": 5}},
            "pruning.minTime = 5: must be below maxTime = 5",
        ),
        (
            {"objectives": [{}, {"metric": "val/accuracy"}], "pruning": {"algorithm": "asha"}},
            'pruning.algorithm = "asha": must be none with 2 objectives',
        ),
        (
            {"objectives": [{}, {"metric": "val/accuracy", "target": 1}]},
            "objectives[1].target = 1: is for one objective; remove it",
        ),
        (
            {"objectives": [{}, {}]},
            "objectives[1].metric: is an objective already",
        ),
        (
            {"objectives": [{"goal": "maximize"}]},
            'objectives[0].goal = "maximize": is the wrong way: val/loss is better when it is lower; remove it',
        ),
        (
            {"budget": {"maxGpuHours": 3}},
            "budget.maxGpuHours = 3: needs GPUs: cluster.workers.gpus is 0; use maxHours",
        ),
        (
            {"budget": {"maxParallel": 3}},
            "budget.maxParallel = 3: at most 2: cluster.workers.count = 2, and a trial has 1",
        ),
        (
            {"budget": {"maxParallel": 2, "maxTrials": 1}},
            "budget.maxParallel = 2: must be at most maxTrials = 1",
        ),
        (
            {"trial": {"workers": 3}},
            "trial.workers = 3: must be at most cluster.workers.count = 2: trials share the job's workers",
        ),
        (
            {"warmStart": {"points": [{"lr": 3}]}},
            "warmStart.points[0].lr = 3: is no parameter of this search; there are optimizer.lr",
        ),
        (
            {"warmStart": {"points": [{"optimizer.lr": 3}]}},
            "warmStart.points[0].optimizer.lr: isn't in its range or list: 0.001 to 0.1",
        ),
        (
            {"constraints": ["lr < 1"]},
            'constraints[0] = "lr < 1": has lr, which is no parameter of this search; there are optimizer.lr',
        ),
        (
            {"constraints": ["1 < 2"]},
            'constraints[0] = "1 < 2": has no parameter in it',
        ),
        (
            {"constraints": ["optimizer.lr <"]},
            'constraints[0] = "optimizer.lr <": can\'t be read; accepted are numbers',
        ),
    ],
)
def test_search_that_cannot_be(tuning, sentence):
    found = problems({"space": LR, **tuning})
    assert any(each.startswith(f"spec.tuning.{sentence}") for each in found), found


def test_conditions_need_an_algorithm_that_has_them():
    space = {
        "optimizer.name": {"values": ["adamw", "sgd"]},
        "optimizer.args.momentum": {"min": 0.5, "max": 0.9, "when": {"optimizer.name": ["sgd"]}},
    }
    assert not problems({"space": space})
    for algorithm in ("gp", "grid"):
        (found, *_) = problems({"space": space, "search": {"algorithm": algorithm}})
        assert f"{algorithm} has no conditions, but optimizer.args.momentum has `when`; use tpe or random" in found


OWN: dict[str, dict[str, Any]] = {
    "script": {"script": {"path": "train.py"}},
    "lightning": {
        "lightning": {
            "module": {"class": "nets:Net", "args": {"width": 8}},
            "datamodule": {"class": "nets:Data", "args": {"batch": 8}},
        }
    },
}
GOAL = [{"metric": "val/score", "goal": "maximize"}]


def problems_of_own(own: dict[str, Any], tuning: dict[str, Any]) -> list[str]:
    job = load_example("digits")
    job["spec"]["training"] = {"code": {"path": "."}, **own}
    job["spec"]["tuning"] = {"objectives": GOAL, **tuning}
    return [str(each) for each in validate(job)[1]]


@pytest.mark.parametrize("own", OWN.values(), ids=OWN)
def test_names_beside_a_program_are_free(own):
    space = {"optimizer": {"values": ["adam", "sgd"]}, "name": {"values": ["a", "b"]}, "lr": {"min": 0.1, "max": 0.5}}
    assert not problems_of_own(own, {"space": space})


@pytest.mark.parametrize(
    ("own", "tuning", "sentence"),
    [
        ("script", {"space": {"script.path": {"values": ["a.py"]}, "lr": {"min": 0, "max": 1}}}, "space.lr: may be"),
        ("script", {"space": {"script.lr": {"min": 0.1, "max": 0.5}}}, "space.script.lr: there is no field"),
        ("script", {"space": {"script.stopSignal": {"values": ["SIGINT", "SIGTERM"]}}},
         "space.script.stopSignal: can't be searched: it is the same in all trials"),
        ("lightning", {"space": {"lightning.trainer.max_epochs": {"min": 2, "max": 5}}},
         "space.lightning.trainer.max_epochs: can't be searched: `pruning` decides how long a trial is"),
        ("script", {"objectives": [{}], "space": {"lr": {"min": 0.1, "max": 0.5}}},
         "objectives[0].goal: is required: what val/loss is, only your program knows; minimize or maximize"),
        ("lightning", {"pruning": {"algorithm": "hyperband"}, "space": {"lr": {"min": 0.1, "max": 0.5}}},
         "pruning.maxTime: is required for hyperband with `lightning`: how many validations a whole trial has"),
        ("script", {"space": {"lr": {"values": ["x" * 10, 3, {"a-b": 1}]}}},
         'space.lr.values[2] = {"a-b": 1}: must be of letters, digits and underscores, and begin with a letter'),
    ],
)  # fmt: skip
def test_search_of_a_program_that_cannot_be(own, tuning, sentence):
    found = problems_of_own(OWN[own], tuning)
    assert any(each.startswith(f"spec.tuning.{sentence}") for each in found), found


@pytest.mark.parametrize("own", OWN.values(), ids=OWN)
def test_search_of_a_program_needs_its_code(own):
    job = load_example("digits")
    job["spec"]["training"] = own
    job["spec"]["tuning"] = {"objectives": GOAL, "space": {"lr": {"min": 0.1, "max": 0.5}}}
    (found,) = validate(job)[1]
    assert str(found).startswith("spec.training.code: is required for a search with `")


PBT: dict[str, Any] = {
    "space": LR,
    "objectives": [{"metric": "val/loss", "reduce": "last"}],
    "search": {"algorithm": "random"},
    "pruning": {"algorithm": "pbt"},
    "budget": {"maxTrials": 4},
}


def test_good_populations():
    assert not problems(PBT)
    space = {**TWO, "loop.clipNorm": {"min": 0.5, "max": 2.0}, "optimizer.args.eps": {"values": [1e-8, 1e-6]},
             "model.args.dropout": {"min": 0.0, "max": 0.5}}  # fmt: skip
    assert not problems(PBT | {"space": space})
    assert not problems(PBT | {"space": TWO, "search": {"algorithm": "sobol"}})
    own = {"class": "nets:Net"}
    assert not problems(PBT | {"space": {"drop": {"min": 0.1, "max": 0.5}}}, model=own)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"budget": {}},
            "spec.tuning.budget.maxTrials: is required with pbt, and at least 2: it is the size of the population",
        ),
        (
            {"budget": {"maxTrials": 1}},
            "spec.tuning.budget.maxTrials = 1: is required with pbt, and at least 2",
        ),
        (
            {"search": {"algorithm": "tpe"}},
            'spec.tuning.search.algorithm = "tpe": learns from trials that have ended, but with pbt all begin first; '
            "use random or sobol",
        ),
        (
            {"objectives": [{"metric": "val/loss"}]},
            'spec.tuning.objectives[0].reduce: must be last with pbt: a trial\'s weights are those of its end',
        ),
        (
            {"pruning": {"algorithm": "pbt", "perturbEvery": 20}},
            "spec.tuning.pruning.perturbEvery = 20: must be below the 20 validations of a trial",
        ),
        (
            {"space": {**LR, "data.batchSize": {"values": [32, 64]}}},
            "spec.tuning.space.data.batchSize: can't change while a trial is trained, as with pbt: a trial continues "
            "from another one's weights, optimizer state and position in the data; there, optimizer.lr, "
            "optimizer.weightDecay, optimizer.args, loop.clipNorm, model.args.dropout, data.images.augment and "
            "arguments of your own code can be searched",
        ),
        (
            {"space": {**LR, "model.args.hidden": {"values": [[8], [16]]}}},
            "spec.tuning.space.model.args.hidden: can't change while a trial is trained",
        ),
        (
            {"space": {"optimizer.lr": {"values": [0.1, 0.2]},
                       "optimizer.weightDecay": {"values": [0.1], "when": {"optimizer.lr": [0.1]}}}},
            "spec.tuning.space.optimizer.weightDecay.when: is not possible with pbt: values change while",
        ),
        (
            {"objectives": [{"metric": "val/loss", "reduce": "last"}, {"metric": "val/accuracy"}]},
            'spec.tuning.pruning.algorithm = "pbt": must be none with 2 objectives',
        ),
        (
            {"pruning": {"algorithm": "pbt", "quantile": 0.6}},
            "spec.tuning.pruning.quantile = 0.6: must be a number above 0 and at most 0.5",
        ),
    ],
)  # fmt: skip
def test_population_that_cannot_be(changes, sentence):
    assert any(sentence in each for each in problems(PBT | changes)), problems(PBT | changes)
