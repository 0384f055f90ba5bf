"""Metrics against scikit-learn, over batches and over ranks; directions; names that lead nowhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as theirs
from torch import Tensor, nn
from trainmaster_api.spec.task import TASK_METRICS
from trainmaster_api.spec.task import Task as TaskSpec
from trainmaster_trainer.backends.torch.evaluate import evaluate
from trainmaster_trainer.data import Prepared
from trainmaster_trainer.data.rows import TensorRows
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.tasks import METRICS_BY_NAME, Task, Unit, build_task

from tests.unit.trainer.harness import loader_of, spawn

CLASSES = TaskSpec.model_validate({"name": "classification", "numClasses": 4, "metrics": [{"name": "auc"}]})
NUMBER = TaskSpec.model_validate({"name": "regression"})
UNIT = Unit(mean=3.0, std=2.5)


def measured(task: Task, output: Tensor, target: Tensor, batch: int) -> dict[str, float]:
    loss, others = task.metrics()
    for start in range(0, len(output), batch):
        out, true = output[start : start + batch], target[start : start + batch]
        loss.update(out, true)
        for metric in others.values():
            metric.update(*task.kind.decode(out, true))
    return {name: metric.compute() for name, metric in {"loss": loss, **others}.items()}


def classes(seed: int, rows: int, ties: bool) -> tuple[Tensor, Tensor]:
    dice = torch.Generator().manual_seed(seed)
    output = torch.randn(rows, 4, generator=dice)
    target = torch.randint(0, 4, (rows,), generator=dice)
    return (output.round() if ties else output), target


@pytest.mark.parametrize("batch", [1, 7, 200])
@pytest.mark.parametrize("ties", [False, True])
def test_classification_is_measured_as_by_scikit_learn(batch: int, ties: bool) -> None:
    output, target = classes(0, 200, ties)
    found = measured(build_task(CLASSES, 4), output, target, batch)
    predicted, probabilities = output.argmax(dim=1), output.softmax(dim=1)
    assert found["accuracy"] == theirs.accuracy_score(target, predicted)
    assert found["f1"] == pytest.approx(theirs.f1_score(target, predicted, average="macro"))
    assert found["auc"] == pytest.approx(theirs.roc_auc_score(target, probabilities.double(), multi_class="ovr"))
    assert found["loss"] == pytest.approx(float(nn.functional.cross_entropy(output, target)), rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=60))
def test_auc_of_two_classes_is_exact_with_ties(rows: list[tuple[int, bool]]) -> None:
    task = build_task(TaskSpec.model_validate({"name": "classification", "metrics": [{"name": "auc"}]}), 2)
    output = torch.tensor([[0.0, score / 3] for score, _ in rows])
    target = torch.tensor([int(is_one) for _, is_one in rows])
    found = measured(task, output, target, 7)["auc"]
    if len({is_one for _, is_one in rows}) == 1:
        assert math.isnan(found), "there is no curve"
    else:
        assert found == pytest.approx(theirs.roc_auc_score(target, output[:, 1]))


@pytest.mark.parametrize("batch", [1, 7, 200])
def test_a_regression_is_measured_in_the_unit_of_its_target(batch: int) -> None:
    dice = torch.Generator().manual_seed(1)
    output, target = torch.randn(200, 1, generator=dice), torch.randn(200, generator=dice)
    found = measured(build_task(NUMBER, 0, UNIT), output, target, batch)
    predicted, true = (value.double().numpy() * UNIT.std + UNIT.mean for value in (output.squeeze(1), target))
    assert found["rmse"] == pytest.approx(theirs.root_mean_squared_error(true, predicted))
    assert found["mae"] == pytest.approx(theirs.mean_absolute_error(true, predicted))
    assert found["r2"] == pytest.approx(theirs.r2_score(true, predicted))
    assert found["loss"] == pytest.approx(float(nn.functional.mse_loss(output.squeeze(1), target)), rel=1e-6)


def test_loss_label_smoothing_is_minimised_and_not_reported() -> None:
    smoothed = TaskSpec.model_validate(
        {"name": "classification", "numClasses": 4, "loss": {"name": "cross_entropy", "args": {"labelSmoothing": 0.3}}}
    )
    output, target = classes(0, 50, ties=False)
    task = build_task(smoothed, 4)
    plain = float(nn.functional.cross_entropy(output, target))
    assert measured(task, output, target, 50)["loss"] == pytest.approx(plain, rel=1e-6)
    expected = float(nn.functional.cross_entropy(output, target, label_smoothing=0.3))
    assert float(task.loss.training(output, target)) == pytest.approx(expected)
    assert expected != pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize(
    ("task", "lower", "higher"),
    [(CLASSES, ["val/loss"], ["val/accuracy", "val/f1", "val/auc"]),
     (NUMBER, ["val/loss", "val/rmse", "val/mae"], ["val/r2"])],
)  # fmt: skip
def test_directions_come_from_the_metrics(task: TaskSpec, lower: list[str], higher: list[str]) -> None:
    built = build_task(task, 4)
    for name in [*lower, *higher]:
        objective = built.objective(name, "here")
        assert objective.is_better(2.0, 1.0) is (name in higher)
        assert objective.is_better(1.0, 2.0) is (name in lower)
        assert not objective.is_better(1.0, 1.0)
        assert objective.is_better(1.0, None)
        assert not objective.is_better(1.5, 1.0, margin=0.6)
        assert not objective.is_better(1.0, 1.5, margin=0.6)
        assert (objective.rank(2.0) < objective.rank(1.0)) is (name in higher)


def test_objective_unknown_metric_suggests_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"checkpoint\.metric: unknown metric 'val/acuracy'; .*did you mean"):
        build_task(CLASSES, 4).objective("val/acuracy", "checkpoint.metric")


def test_the_contract_and_the_registry_have_the_same_metrics() -> None:
    assert METRICS_BY_NAME.names == TASK_METRICS.names


# -- over ranks -------------------------------------------------------------------------------------------------------
class Echo(nn.Module):
    """Returns its input: what is measured is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def rows_of(spec: TaskSpec, count: int) -> tuple[Prepared, Task]:
    if spec.name == "classification":
        x, y = classes(5, count, ties=True)
    else:
        dice = torch.Generator().manual_seed(2)
        x, y = torch.randn(count, 1, generator=dice), torch.randn(count, generator=dice)
    numbers = np.arange(count)
    data = Prepared(TensorRows(x, y, [], []), numbers, numbers, numbers, torch.zeros(1), torch.ones(1))
    return data, build_task(spec, 4, UNIT)


def compare(rank: int, world_size: int, spec: TaskSpec, counts: list[int]) -> None:
    for count in counts:
        data, task = rows_of(spec, count)
        alone = evaluate(Echo(), loader_of(data), data.test, task)
        together = evaluate(Echo(), loader_of(data), data.test, task, rank=rank, world_size=world_size)
        # a batch's mean loss is float32, so that sums depend on how rows fall into batches; nothing else does
        assert together.pop("loss") == pytest.approx(alone.pop("loss"), rel=1e-6)
        assert together == pytest.approx(alone, rel=1e-12, nan_ok=True), (rank, count)


@pytest.mark.parametrize("spec", [CLASSES, NUMBER], ids=["classification", "regression"])
def test_ranks_together_measure_what_one_does(spec: TaskSpec) -> None:
    """One row: two of the three ranks have none, and don't know the shape of what they gather."""
    spawn(3, compare, spec, [1, 2, 50, 601])


def gathered_in_order(rank: int, world_size: int) -> None:
    from trainmaster_trainer.tasks.own import FunctionMetric

    seen: list[Tensor] = []

    def keep(output: Tensor, target: Tensor) -> float:
        seen.append(target)
        return 0.0

    data, task = rows_of(CLASSES, 10)
    factories: dict[str, Callable[[], FunctionMetric]] = {
        "keep": lambda: FunctionMetric("keep", keep, higher_is_better=True)
    }
    mine = Task(task.kind, task.loss, dict(factories))
    evaluate(Echo(), loader_of(data), data.test, mine, rank=rank, world_size=world_size)
    assert torch.equal(seen[0], data.batch(data.test)[1]), "as one process would have seen them"


def test_function_metric_row_order(tmp_path: Path) -> None:
    spawn(3, gathered_in_order)
