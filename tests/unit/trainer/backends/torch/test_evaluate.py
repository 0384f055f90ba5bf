"""Evaluation of a split on one rank: in batches that fit, and the model is as before (ranks: tasks/test_metrics.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from trainmaster_api.spec.task import Task as TaskSpec
from trainmaster_trainer.backends.torch import evaluate as module
from trainmaster_trainer.backends.torch.evaluate import evaluate
from trainmaster_trainer.data import Prepared
from trainmaster_trainer.data.rows import TensorRows
from trainmaster_trainer.tasks import Task, build_task

from tests.unit.trainer.harness import loader_of

CLASSES = TaskSpec.model_validate({"name": "classification", "numClasses": 4})


class Watched(nn.Module):
    """Notes the size of each batch, and what state it was called in."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.sizes: list[int] = []
        self.states: set[tuple[bool, bool]] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        self.states.add((self.training, torch.is_grad_enabled()))
        return x * self.scale


def rows(count: int = 50, classes: int = 4) -> tuple[Prepared, Task]:
    dice = torch.Generator().manual_seed(0)
    x, y = torch.randn(count, classes, generator=dice), torch.randint(0, 4, (count,), generator=dice)
    numbers = np.arange(count)
    data = Prepared(TensorRows(x, y, [], []), numbers, numbers, numbers, torch.zeros(1), torch.ones(1))
    return data, build_task(CLASSES, 4)


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_leaves_the_mode_as_it_was(training: bool) -> None:
    model, (data, task) = Watched(), rows()
    model.train(training)
    evaluate(model, loader_of(data), data.test, task)
    assert model.training is training
    assert model.states == {(False, False)}, "dropout and gradients are off meanwhile"


@pytest.mark.parametrize(
    ("most_rows", "most_values", "sizes"),
    [
        (512, 2**22, [50]),
        (20, 2**22, [20, 20, 10]),
        (512, 4 * 30, [30, 20]),
        (512, 1, [1] * 50),  # a sample that is larger than the limit is still evaluated
    ],
)
def test_evaluate_batches_fit(
    most_rows: int, most_values: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (data, task) = Watched(), rows()
    whole = evaluate(Watched(), loader_of(data), data.test, task)
    monkeypatch.setattr(module, "MOST_ROWS", most_rows)
    monkeypatch.setattr(module, "MOST_VALUES", most_values)
    found = evaluate(model, loader_of(data), data.test, task)
    assert model.sizes == sizes
    assert found == pytest.approx(whole, rel=1e-6)


def test_evaluate_measures_the_rows_that_are_asked_for() -> None:
    data, task = rows()
    x, y = data.batch(data.test)
    right = np.flatnonzero((x.argmax(dim=1) == y).numpy())
    wrong = np.flatnonzero((x.argmax(dim=1) != y).numpy())
    assert evaluate(Watched(), loader_of(data), right, task)["accuracy"] == 1.0
    assert evaluate(Watched(), loader_of(data), wrong, task)["accuracy"] == 0.0
    assert set(evaluate(Watched(), loader_of(data), right, task)) == {"loss", "accuracy", "f1"}
