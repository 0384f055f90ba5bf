"""`hyperparameterSearch`: the search that it is short for, and the space that follows from a job."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainmaster_api.spec.default_space import BY_NAME
from trainmaster_api.spec.model import MODELS
from trainmaster_api.spec.parameter import Parameter
from trainmaster_api.spec.shorthand import ALGORITHMS, budget_text, grid_points
from trainmaster_api.spec.tuning import MOST_TRIALS, Tuning
from trainmaster_api.tuning.plan import plan_of
from trainmaster_api.tuning.space import axes_of, final_document, trial_document
from trainmaster_api.validation.validate import validate

from tests.factories import Changes, make_job, parse
from tests.unit.api.samples import LIGHTNING, RECIPE, SCRIPT, TRANSFORMERS, job

CODE: Changes = {"spec.training.code": {"path": "."}}
Plain = dict[str, Any]


def short(**more: Any) -> Changes:
    return {"spec.hyperparameterSearch": {"method": "bayesian", "budget": 50, **more}}


def tuning_of(*changes: Changes, **more: Any) -> Tuning:
    found = parse(job(*changes, short(**more))).spec.tuning
    assert found is not None
    return found


def space_of(*changes: Changes, **more: Any) -> dict[str, Plain]:
    wanted = ("min", "max", "values")
    return {
        name: {key: value for key, value in each.wire().items() if key in wanted}
        for name, each in tuning_of(*changes, **more).space.items()
    }


@pytest.mark.parametrize(("method", "algorithm"), [("grid", "grid"), ("random", "random"), ("bayesian", "tpe")])
def test_method_and_budget_are_those_of_a_tuning(method: str, algorithm: str) -> None:
    found = tuning_of({"spec.training.loop.seed": 7}, method=method)
    assert (found.search.algorithm, found.search.seed) == (algorithm, 7)
    assert (found.budget.max_trials, found.budget.max_hours) == (50, None)
    assert (found.pruning, found.objectives[0].metric) == (Tuning.model_fields["pruning"].default, "val/loss")


@pytest.mark.parametrize(
    ("method", "budget", "trials", "hours"),
    [
        ("random", "50", 50, None),
        ("random", "2h", MOST_TRIALS, 2),
        ("bayesian", "90m", MOST_TRIALS, 1.5),
        ("grid", "2h", None, 2),
    ],
)
def test_budget_is_trials_or_time(method: str, budget: str, trials: int | None, hours: float | None) -> None:
    """With a time alone there is no end of trials, but that of a grid."""
    found = tuning_of(method=method, budget=budget).budget
    assert (found.max_trials, found.max_hours) == (trials, hours)


@settings(deadline=None)
@given(st.integers(1, 60_000))
def test_hours_are_written_as_they_are_read(minutes: int) -> None:
    found = tuning_of(budget=budget_text(minutes / 60)).budget.max_hours
    assert found is not None
    assert math.isclose(found, minutes / 60)


def test_default_space_of_a_model() -> None:
    """A tenth to ten times the rates of adamw, half to double of the batch, and what the model declares."""
    assert space_of() == {
        "optimizer.lr": {"min": 0.0001, "max": 0.01},
        "optimizer.weightDecay": {"min": 0.001, "max": 0.1},
        "data.batchSize": {"values": [16, 32, 64]},
        "model.args.dropout": {"min": 0.0, "max": 0.5},
    }
    assert {each.name: each.is_log for each in axes_of(parse(job(short())).spec)} == {
        "optimizer.lr": True, "optimizer.weightDecay": True, "data.batchSize": False, "model.args.dropout": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "name", "expected"),
    [
        ({"spec.training.optimizer": {"name": "sgd"}}, "optimizer.weightDecay", None),
        ({"spec.training.optimizer": {"name": "sgd", "lr": 50.0}}, "optimizer.lr", {"min": 5.0, "max": 100.0}),
        ({"spec.training.optimizer": {"name": "sgd", "lr": 0.007}}, "optimizer.lr", {"min": 0.0007, "max": 0.07}),
        ({"spec.cluster.workers.count": 32}, "data.batchSize", {"values": [32, 64]}),
        ({"spec.training.data.batchSize": 1000}, "data.batchSize", {"values": [500, 1000]}),
        ({"spec.training.data.batchSize": 33}, "data.batchSize", {"values": [33, 66]}),
        ({"spec.training.model": {"class": "nets:Net", "args": {"width": 64}}}, "model.args.width", None),
        (
            {"spec.training.model": {"class": "nets:Net", "args": {"dropout": 0.1}}},
            "model.args.dropout",
            {"min": 0.0, "max": 0.5},
        ),
    ],
)
def test_default_space_keeps_what_is_possible(changes: Changes, name: str, expected: Plain | None) -> None:
    assert space_of(changes).get(name) == expected


NUMBERS = {"lr": 0.003, "batch_size": 32, "dropout": 0.1, "epochs": 10, "seed": 0, "momentum": 0.9, "weight_decay": 0}
OF_NUMBERS = {
    "lr": {"min": 0.0003, "max": 0.03}, "batch_size": {"values": [16, 32, 64]}, "dropout": {"min": 0.0, "max": 0.5},
}  # fmt: skip


def test_default_space_of_own_programs() -> None:
    """Names that say what they are; what a momentum or a number of epochs may be, only its user knows."""
    script: Changes = {"spec.training.script.parameters": NUMBERS}
    assert space_of(SCRIPT, CODE, script, goal="minimize") == OF_NUMBERS
    module: Changes = {"spec.training.lightning.module.args": {"lr": 0.003, "dropout": 0.1, "layers": 2}}
    data: Changes = {"spec.training.lightning.datamodule": {"class": "m:Data", "args": {"batch_size": 32, "lr": 9}}}
    lightning = parse(job(LIGHTNING, CODE, module, data, short(goal="minimize"))).spec
    assert {each.name: each.path for each in axes_of(lightning)} == {
        "lr": "lightning.module.args.lr",
        "batch_size": "lightning.datamodule.args.batch_size",
        "dropout": "lightning.module.args.dropout",
    }
    assert space_of(LIGHTNING, CODE, module, data, goal="minimize") == OF_NUMBERS


def test_default_space_of_transformers_and_recipes() -> None:
    """Of TrainingArguments the default rate is 5e-5; an optimizer of a recipe's own would make ours an empty name."""
    assert space_of(TRANSFORMERS, goal="minimize") == {
        "learning_rate": {"min": 5e-06, "max": 0.0005},
        "data.batchSize": {"values": [16, 32, 64]},
    }
    recipe: Changes = {"spec.training.recipe.args": {"lr": 0.003, "width": 8}}
    assert space_of(RECIPE, recipe) == {
        "recipe.args.lr": {"min": 0.0003, "max": 0.03},
        "recipe.batchSize": {"values": [16, 32, 64]},
    }


@pytest.mark.parametrize(
    ("section", "arguments"),
    [(SCRIPT, "script.parameters"), (RECIPE, "recipe.args"), (LIGHTNING, "lightning.module.args")],
)
def test_where_no_space_follows_one_is_asked_for(section: Changes, arguments: str) -> None:
    names = ", ".join(BY_NAME)
    _, problems = validate(job(section, CODE, short(goal="minimize")))
    assert [str(each) for each in problems] == [
        f"spec.hyperparameterSearch.space: is required: {arguments} has no number named {names}, from which a default "
        "would follow; say what is searched, such as `lr: {min: 0.0001, max: 0.1, scale: log}`"
    ]


def test_own_space_is_taken_as_it_is() -> None:
    own = {"optimizer.lr": {"min": 0.01, "max": 0.1}, "optimizer.name": {"values": ["adamw", "sgd"]}}
    found = tuning_of(space=own)
    assert {name: each.wire() for name, each in found.space.items()} == {
        name: Parameter.model_validate(each).wire() for name, each in own.items()
    }


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        ({"min": 0.0001, "max": 0.01, "scale": "log"}, [0.0001, 0.001, 0.01]),
        ({"min": 0.0, "max": 0.5}, [0.0, 0.25, 0.5]),
        ({"min": 16, "max": 256, "scale": "log"}, [16, 64, 256]),
        ({"min": 1, "max": 8}, [1, 4, 8]),
        ({"min": 1.0, "max": 2.0}, [1, 2]),  # whole, as Kubernetes would store it
        ({"min": 0, "max": 1, "type": "float"}, [0.0, 0.5, 1.0]),
    ],
)
def test_grid_has_the_ends_and_the_middle_of_a_range(parameter: Plain, values: list[float]) -> None:
    found = grid_points(Parameter.model_validate(parameter)).values
    assert found == values
    assert [type(each) for each in found or ()] == [type(each) for each in values]


@pytest.mark.parametrize("parameter", [{"values": [1, 5, 7]}, {"min": 0, "max": 8, "step": 2}, {"value": 3}])
def test_grid_keeps_what_is_finite(parameter: Plain) -> None:
    assert grid_points(Parameter.model_validate(parameter)) == Parameter.model_validate(parameter)


def test_grid_of_a_default_space() -> None:
    """3 x 3 x 3 x 3, the job's own values among them; the budget limits it."""
    plan = plan_of(parse(job(short(method="grid", budget=200))).spec)
    assert (plan.combinations, plan.trials) == (81, 81)
    assert plan_of(parse(job(short(method="grid", budget=20))).spec).trials == 20
    grids = {each.name: each.grid() for each in plan.axes}
    assert (grids["optimizer.lr"][1], grids["optimizer.weightDecay"][1], grids["data.batchSize"][1]) == (
        0.001, 0.01, 32,
    )  # fmt: skip


def test_trials_and_winner_have_no_search() -> None:
    found = parse(job(short()))
    for document in (trial_document(found, [], {}), final_document(found, [], {})):
        assert parse(document).spec.tuning is None


rates = st.floats(1e-12, 100, allow_nan=False)


@settings(max_examples=25, deadline=None)
@given(
    optimizer=st.fixed_dictionaries(
        {"name": st.sampled_from(["adamw", "sgd"]), "lr": rates},
        optional={"weightDecay": st.floats(0, 10, allow_nan=False)},
    ),
    model=st.sampled_from([each.name for each in MODELS if not each.needs_text]),
    workers=st.integers(1, 3),
    accumulation=st.integers(1, 3),
    times=st.integers(1, 240),
    method=st.sampled_from(list(ALGORITHMS)),
    budget=st.one_of(st.integers(1, MOST_TRIALS), st.integers(1, 999).map(lambda number: f"{number}h")),
)
def test_default_space_fits_every_valid_job(
    optimizer: Plain, model: str, workers: int, accumulation: int, times: int, method: str, budget: int | str
) -> None:
    """Each end of each range is put into the job, as validation does, and makes a valid trial and a valid winner."""
    changes: Changes = {
        "spec.training.optimizer": optimizer,
        "spec.training.model": {"name": model},
        "spec.cluster.workers.count": workers,
        "spec.training.loop.gradientAccumulation": accumulation,
        "spec.training.data.batchSize": workers * accumulation * times,
    }
    _, without = validate(make_job(changes))
    _, found = validate(make_job(changes, short(method=method, budget=budget)))
    assert [str(each) for each in found] == [str(each) for each in without]
