"""Weights of rows in the loss. Expected values are computed by numpy, from the definition of each loss."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name
from trainmaster_api.spec.task import Task as TaskSpec
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.tasks import Task, build_task

ROWS = 12
DICE = np.random.default_rng(5)
OUTPUT = {"classification": DICE.normal(0, 2, (ROWS, 3)), "regression": DICE.normal(0, 2, (ROWS, 1))}
TARGET = {"classification": DICE.integers(0, 3, ROWS), "regression": DICE.normal(0, 1, ROWS)}
WEIGHT = DICE.uniform(0, 2, ROWS)
WEIGHT[3] = 0.0


def per_row(loss: str, smoothing: float = 0.0) -> np.ndarray[Any, Any]:
    if loss == "cross_entropy":
        output, target = OUTPUT["classification"], TARGET["classification"]
        log = output - np.log(np.exp(output).sum(axis=1, keepdims=True))
        return -(1 - smoothing) * log[np.arange(ROWS), target] - smoothing * log.mean(axis=1)
    error = OUTPUT["regression"][:, 0] - TARGET["regression"]
    if loss == "huber":
        return np.where(np.abs(error) < 1, error**2 / 2, np.abs(error) - 0.5)
    return error**2 if loss == "mse" else np.abs(error)


def batch(name: str, rows: slice = slice(None)) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(OUTPUT[name][rows]), torch.from_numpy(TARGET[name][rows])


def task(loss: dict[str, Any], name: str = "classification", *, has_weights: bool = True) -> Task:
    return build_task(TaskSpec.model_validate({"name": name, "loss": loss}), 3, has_weights=has_weights)


LOSSES = [
    ("classification", {"name": "cross_entropy"}),
    ("classification", {"name": "cross_entropy", "args": {"labelSmoothing": 0.2}}),
    ("regression", {"name": "mse"}),
    ("regression", {"name": "mae"}),
    ("regression", {"name": "huber"}),
]


@pytest.mark.parametrize(("name", "loss"), LOSSES)
def test_training_loss_is_divided_by_the_rows(name: str, loss: dict[str, Any]) -> None:
    found = task(loss, name).loss
    rows = per_row(loss["name"], loss.get("args", {}).get("labelSmoothing", 0.0))
    weight = torch.from_numpy(WEIGHT)
    assert float(found.training(*batch(name), weight=weight)) == pytest.approx((WEIGHT * rows).sum() / ROWS)
    assert float(found.training(*batch(name))) == pytest.approx(rows.mean())
    halves = [slice(0, 6), slice(6, 12)]  # as micro-batches and ranks have them
    parts = [float(found.training(*batch(name, half), weight=weight[half])) for half in halves]
    assert np.mean(parts) == pytest.approx((WEIGHT * rows).sum() / ROWS)


@pytest.mark.parametrize(("name", "loss"), LOSSES)
def test_reported_loss_is_divided_by_the_weights(name: str, loss: dict[str, Any]) -> None:
    metric, _ = task(loss, name).metrics()
    for rows in (slice(0, 7), slice(7, 12)):
        metric.update(*batch(name, rows), torch.from_numpy(WEIGHT[rows]))
    expected = np.average(per_row(loss["name"]), weights=WEIGHT)
    assert metric.compute() == pytest.approx(expected, rel=1e-5)  # a loss is computed in float32


# -- losses of the user's own -----------------------------------------------------------------------------------------


def plain(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target)


def weighted(output: Tensor, target: Tensor, weight: Tensor | None = None, scale: float = 1.0) -> Tensor:
    loss = F.cross_entropy(output, target, reduction="none") * scale
    return loss.mean() if weight is None else (loss * weight).mean()


class Plain(nn.Module):
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return plain(output, target)


class Weighted(nn.Module):
    def forward(self, output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return weighted(output, target, weight)


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("my_losses")
    for each in (plain, weighted, Plain, Weighted):
        setattr(module, each.__name__, each)
    monkeypatch.setitem(sys.modules, "my_losses", module)


@pytest.mark.parametrize(
    "loss",
    [
        {"class": "my_losses:plain"},
        {"class": "my_losses:Plain"},
        {"class": "torch.nn:CrossEntropyLoss"},
        {"class": "torch.nn.functional:cross_entropy"},  # its weight is that of classes
        {"class": "my_losses:weighted", "args": {"weight": 3.0}},
    ],
)
def test_own_loss_without_weight_is_refused(loss: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"signature doesn't name `weight`.* or remove the weights"):
        task(loss)
    task(loss, has_weights=False)


@pytest.mark.parametrize(
    "loss", [{"class": "my_losses:weighted", "args": {"scale": 2.0}}, {"class": "my_losses:Weighted"}]
)
def test_own_loss_with_weight_gets_it(loss: dict[str, Any]) -> None:
    scale = 2 if "args" in loss else 1
    metric, _ = task(loss).metrics()
    metric.update(*batch("classification"), torch.from_numpy(WEIGHT))
    expected = np.average(per_row("cross_entropy"), weights=WEIGHT)
    assert metric.compute() == pytest.approx(scale * expected, rel=1e-5)
