"""Parts: defaults that depend on the name, typed arguments, and what is open."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from trainmaster_api.spec.augment import TRANSFORMS
from trainmaster_api.spec.model import MODELS, MlpArgs, ModelPart, shape_problem
from trainmaster_api.spec.optimizer import OPTIMIZERS, Optimizer
from trainmaster_api.spec.schedule import SCHEDULES, Schedule
from trainmaster_api.spec.task import DEFAULT_LOSS, LOSSES, METRICS, TASK_METRICS, Loss, MetricPart, Task
from trainmaster_api.spec.training import Training


@pytest.mark.parametrize("name", OPTIMIZERS.names)
def test_an_optimizer_has_the_defaults_of_its_name(name: str) -> None:
    expected = OPTIMIZERS[name].defaults
    found = Optimizer.model_validate({"name": name})
    assert {"lr": found.lr, "weightDecay": found.weight_decay} == expected


@pytest.mark.parametrize("name", SCHEDULES.names)
def test_a_schedule_has_the_warmup_of_its_name(name: str) -> None:
    assert Schedule(name=name).warmup == SCHEDULES[name].defaults["warmup"]


def test_what_is_given_wins_by_either_name() -> None:
    assert Optimizer.model_validate({"name": "sgd", "lr": 3, "weightDecay": 0.5}).wire()["weightDecay"] == 0.5
    assert Optimizer.model_validate({"name": "sgd", "lr": 3, "weight_decay": 0.5}).wire()["weightDecay"] == 0.5
    assert Schedule(name="cosine", warmup="3ep").warmup == "3ep"


def test_a_class_has_no_defaults_of_ours() -> None:
    with pytest.raises(ValidationError, match="lr"):
        Optimizer.model_validate({"class": "own:Lion"})
    found = Optimizer.model_validate({"class": "own:Lion", "lr": 0.1})
    assert (found.weight_decay, found.label, found.name) == (None, "own:Lion", None)
    assert Schedule.model_validate({"class": "own:ramp"}).warmup == "0"


def test_part_arguments_of_ours_have_their_defaults() -> None:
    part = ModelPart(name="mlp", args={"hidden": [8]})
    assert part.args == {"hidden": [8], "dropout": 0.0, "activation": "relu"}
    assert ModelPart(name="mlp").args == MlpArgs().wire()
    assert part.typed_args(MlpArgs) == MlpArgs(hidden=[8])


def test_arguments_of_others_are_left_as_they_are() -> None:
    odd = {"a": None, "deep": {"b": [1, {"c": 2}]}}
    assert ModelPart(name="timm/resnet50", args=odd).args == odd
    assert ModelPart.model_validate({"class": "own:Net", "args": odd}).args == odd


def test_a_part_that_was_written_is_read_as_it_was() -> None:
    job = {"task": {"name": "classification", "metrics": [{"class": "own:Kappa"}]}, "data": {"class": "own:Rows"}}
    for model in ({"name": "vit"}, {"class": "own:Net", "args": {"x": 1}}):
        training = Training.model_validate({**job, "model": model})
        assert Training.model_validate(training.wire()) == training
        assert "class" in training.wire()["data"]


def test_every_shipped_name_has_its_default_and_its_words() -> None:
    for family in (MODELS, OPTIMIZERS, SCHEDULES, LOSSES, TASK_METRICS, TRANSFORMS):
        assert family.call.words
        assert family.group.startswith("trainmaster.")
        for shipped in family:
            assert shipped.summary.endswith(".")
            shipped.args()
    for task, loss in DEFAULT_LOSS.items():
        assert task in LOSSES[loss].tasks
        assert Task(name=task).loss_or_default == Loss(name=loss)
        assert set(METRICS[task]) - {"loss"} <= {each.name for each in TASK_METRICS if task in each.tasks}


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ({"name": "f1"}, "f1"),
        ({"name": "torchmetrics/AUROC"}, "auroc"),
        ({"class": "own.metrics:CohenKappa"}, "cohen_kappa"),
        ({"class": "own:Outer.TopTwo"}, "top_two"),
        ({"class": "own:top2"}, "top2"),
    ],
)
def test_a_metric_is_called_by_its_last_name(part: dict[str, str], key: str) -> None:
    assert MetricPart.model_validate(part).key == key


@pytest.mark.parametrize(
    ("model", "shape", "field"),
    [
        ({"name": "mlp"}, (4,), None),
        ({"name": "cnn"}, (4,), "name"),
        ({"name": "cnn", "args": {"widths": [8, 8]}}, (1, 4, 8), None),
        ({"name": "cnn", "args": {"widths": [8, 8, 8]}}, (1, 4, 8), "args.widths"),
        ({"name": "vit", "args": {"patch": 4}}, (1, 8, 4), None),
        ({"name": "vit", "args": {"patch": 4}}, (1, 8, 6), "args.patch"),
        ({"name": "transformer"}, (4,), "name"),
        ({"class": "own:Net"}, (4,), None),
    ],
)
def test_a_model_of_ours_says_which_shapes_it_takes(
    model: dict[str, object], shape: tuple[int, ...], field: str | None
) -> None:
    found = shape_problem(ModelPart.model_validate(model), shape)
    assert (found[0] if found else None) == field


@pytest.mark.parametrize(
    ("model", "field"),
    [
        ({"name": "transformer"}, None),
        ({"name": "mlp"}, "name"),
        ({"name": "cnn"}, "name"),
        ({"name": "vit"}, "name"),
        ({"class": "own:Net"}, None),
    ],
)
def test_text_is_for_models_that_read_it(model: dict[str, object], field: str | None) -> None:
    found = shape_problem(ModelPart.model_validate(model), (256,), is_text=True)
    assert (found[0] if found else None) == field
