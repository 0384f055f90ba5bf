"""Axes of a search, and the jobs that its trials are."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.tuning.space import Axis, axes_of, samples, trial_document
from trainmaster_api.validation.validate import validate

from tests.factories import load_example


def searching(space: dict[str, Any], **more: Any) -> TrainingJob:
    job = load_example("digits")
    job["spec"]["training"]["model"] = {"name": "mlp"}
    for path, value in more.pop("training", {}).items():
        job["spec"]["training"][path] = value
    job["spec"]["tuning"] = {"space": space, **more}
    found, problems = validate(job)
    assert found is not None, problems
    return found


def test_type_of_a_range_follows_from_its_field():
    job = searching({
        "optimizer.lr": {"min": 1, "max": 2},
        "data.batchSize": {"min": 64, "max": 128, "step": 32},
        "model.args.dropout": {"min": 0, "max": 0.5},
    })  # fmt: skip
    assert {each.name: each.kind for each in axes_of(job.spec)} == {
        "optimizer.lr": "float", "data.batchSize": "int", "model.args.dropout": "float",
    }  # fmt: skip


def test_type_of_a_range_of_own_arguments():
    own = {"model": {"class": "nets:Net"}}
    job = searching({"depth": {"min": 1, "max": 8}, "drop": {"min": 0, "max": 1, "type": "float"}, "a.b": {"value": 3}},
                    training=own)  # fmt: skip
    found = {each.name: each for each in axes_of(job.spec)}
    assert (found["depth"].kind, found["depth"].path) == ("int", "model.args.depth")
    assert (found["drop"].kind, found["a.b"].path) == ("float", "model.args.a.b")


@pytest.mark.parametrize(
    "parameter",
    [{"min": 1, "max": 8}, {"min": 1, "max": 9, "step": 2}, {"min": 1, "max": 100, "scale": "log"},
     {"min": 0.5, "max": 1.0}, {"min": 0, "max": 1, "type": "float"}, {"values": [1, 2.0, "3"]}, {"value": 1.0}],
)  # fmt: skip
def test_job_that_is_written_and_read_again_has_the_same_axes(parameter):
    """The driver and each trial read what the command or the operator has written."""
    job = searching({"own": parameter, "optimizer.lr": {"min": 0.1, "max": 1}},
                    training={"model": {"class": "nets:Net"}})  # fmt: skip
    again = TrainingJob.model_validate(json.loads(json.dumps(job.wire())))
    assert [repr(each) for each in axes_of(again.spec)] == [repr(each) for each in axes_of(job.spec)]


def test_axes_come_after_those_they_depend_on():
    job = searching({
        "optimizer.args.momentum": {"min": 0.5, "max": 0.9, "when": {"optimizer.name": ["sgd"]}},
        "optimizer.name": {"values": ["adamw", "sgd"]},
    })  # fmt: skip
    assert [each.name for each in axes_of(job.spec)] == ["optimizer.name", "optimizer.args.momentum"]


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (Axis("a", "", "int", 1, 7, 3), [1, 4, 7]),
        (Axis("a", "", "int", 1, 8, 3), [1, 4, 7]),
        (Axis("a", "", "float", 0, 0.3, 0.1), [0, 0.1, 0.2, 0.3]),
        (Axis("a", "", "choice", values=("x", [1])), ["x", [1]]),
        (Axis("a", "", "constant", values=(5,)), [5]),
    ],
)
def test_grid_of_an_axis(axis, expected):
    assert axis.grid() == pytest.approx(expected) if axis.kind == "float" else axis.grid() == expected
    assert axis.count == len(expected)


def test_range_of_decimals_has_no_grid():
    assert Axis("a", "", "float", 0, 1).count == math.inf


def test_trial_is_the_job_with_other_values():
    job = searching({"optimizer.lr": {"min": 0.1, "max": 1}, "model.args.hidden": {"values": [[8], [16, 8]]}},
                    trial={"workers": 1})  # fmt: skip
    document = trial_document(job, axes_of(job.spec), {"optimizer.lr": 0.5, "model.args.hidden": [16, 8]})
    trial, problems = validate(document)
    assert trial is not None, problems
    plain = job.wire()["spec"]
    expected = {
        **plain["training"], "optimizer": {**plain["training"]["optimizer"], "lr": 0.5},
        "model": {**plain["training"]["model"], "args": {**plain["training"]["model"]["args"], "hidden": [16, 8]}},
    }  # fmt: skip
    assert trial.spec.training.wire() == expected
    assert trial.spec.tuning is None
    assert trial.spec.cluster.workers.count == 1


def test_trial_with_another_name_keeps_nothing_of_the_first():
    job = searching({"optimizer.name": {"values": ["adamw", "sgd"]}},
                    training={"optimizer": {"name": "adamw", "lr": 0.5, "args": {"eps": 0.01}}})  # fmt: skip
    trial, problems = validate(trial_document(job, axes_of(job.spec), {"optimizer.name": "sgd"}))
    assert trial is not None, problems
    assert trial.spec.training.optimizer.wire() == {
        "name": "sgd", "lr": 0.1, "weightDecay": 0.0, "args": {"momentum": 0.9, "nesterov": False},
    }  # fmt: skip


def test_samples_give_every_bound_and_value_once_with_what_it_needs():
    job = searching({
        "optimizer.name": {"values": ["adamw", "sgd"]},
        "optimizer.args.momentum": {"min": 0.5, "max": 0.9, "when": {"optimizer.name": ["sgd"]}},
    })  # fmt: skip
    found = [(name, place, values) for name, place, values in samples(axes_of(job.spec))]
    assert [each[:2] for each in found] == [
        ("optimizer.name", "values[0]"), ("optimizer.name", "values[1]"),
        ("optimizer.args.momentum", "min"), ("optimizer.args.momentum", "max"),
    ]  # fmt: skip
    assert found[0][2] == {"optimizer.name": "adamw"}
    assert found[3][2] == {"optimizer.name": "sgd", "optimizer.args.momentum": 0.9}


OWN: dict[str, Any] = {
    "script": {"path": "train.py", "parameters": {"width": 8, "name": "a"}},
    "lightning": {
        "module": {"class": "nets:Net", "args": {"width": 8}},
        "datamodule": {"class": "nets:Data", "args": {"batch": 8}},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        (
            "script", {"name": "b", "optimizer.name": "sgd", "script.args": ["-v"]},
            {"script.parameters": {"width": 8, "name": "b", "optimizer": {"name": "sgd"}}, "script.args": ["-v"]},
        ),
        (
            "lightning", {"batch": 16, "name": "b", "lightning.trainer.precision": "bf16"},
            {"lightning.module.args": {"width": 8, "name": "b"}, "lightning.datamodule.args": {"batch": 16},
             "lightning.trainer": {"precision": "bf16"}},
        ),
    ],
)  # fmt: skip
def test_values_of_a_program_are_in_its_section(section, values, expected):
    job = load_example("digits")
    job["spec"]["training"] = {"code": {"path": "."}, section: OWN[section]}
    space = {name: {"values": [value]} for name, value in values.items()}
    job["spec"]["tuning"] = {
        "objectives": [{"metric": "val/loss", "goal": "minimize"}], "space": {**space, "x": {"values": [1, 2]}},
    }  # fmt: skip
    found, problems = validate(job)
    assert found is not None, problems
    training = trial_document(found, axes_of(found.spec), values)["spec"]["training"]
    for path, value in expected.items():
        node = training
        for step in path.split("."):
            node = node[step]
        assert node == value
