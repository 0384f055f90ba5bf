"""What a recipe minimises and measures, as the loop asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from trainmaster_api.references import did_you_mean

from trainmaster_trainer.errors import ConfigurationError, UserCodeError
from trainmaster_trainer.sample import Batch
from trainmaster_trainer.tasks.base import LossValue, require_gradient, require_scalar
from trainmaster_trainer.tasks.metrics import Metric
from trainmaster_trainer.tasks.objective import Objective

from . import HasState, Recipe


class Quotient(Metric):
    """A sum over a split divided by a count.

    Args:
        name: Name in metrics.jsonl.
        higher_is_better: Its direction.
    """

    def __init__(self, name: str, *, higher_is_better: bool) -> None:
        super().__init__()
        self.name, self.higher_is_better = name, higher_is_better
        self.add_state("total", torch.zeros((), dtype=torch.float64))
        self.add_state("count", torch.zeros((), dtype=torch.float64))

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch's sum and count."""
        self.add("total", output.double())
        self.add("count", target.double())

    def compute(self) -> float:
        """Return the quotient; NaN where nothing counted."""
        return float(self["total"] / self["count"])


class RecipeTask:
    """What a recipe minimises and measures.

    Args:
        recipe: The recipe.
        label: Its reference, for sentences.
        device: Where its batches are.
    """

    outputs = 0
    """A recipe's model may return anything."""

    def __init__(self, recipe: Recipe, label: str, device: torch.device) -> None:
        self.recipe, self._label, self._device = recipe, label, device

    @property
    def module(self) -> nn.Module | None:
        """Return the loss as a module, if it is one: its buffers are saved."""
        return self.recipe.loss if isinstance(self.recipe.loss, nn.Module) else None

    @property
    def states(self) -> Mapping[str, HasState]:
        """Return what else changes while training, by name."""
        return self.recipe.state

    def loss_of(self, model: nn.Module, batch: Batch) -> LossValue:
        """Return the mean of a batch, or its sum and count."""
        found = self.recipe.loss(model, batch.x)
        if isinstance(found, tuple):
            total, count = found
            return total, count if isinstance(count, Tensor) else torch.tensor(float(count), device=self._device)
        return found

    def checked_loss(self, replica: nn.Module, model: nn.Module, batch: Batch, label: str) -> LossValue:
        """Return the same for the first batch, after checking all that the recipe's functions return.

        Raises:
            UserCodeError: They don't return what the loop needs.
        """
        called: list[bool] = []
        with replica.register_forward_pre_hook(lambda *_: called.append(True)):
            found = self.recipe.loss(replica, batch.x)
        where = f"recipe {label}: Recipe.loss"
        if not called:
            raise UserCodeError(
                f"{where} doesn't call the model that it is given, so its gradients wouldn't be synchronized between "
                "workers; call `model(...)` with the argument `model`, and no other reference to the model"
            )
        value: Any = found
        if isinstance(found, tuple):
            if len(found) != 2:
                raise UserCodeError(f"{where} returned a tuple of {len(found)}; expected (sum, count)")
            value, count = found
            is_number = isinstance(count, int | float) and not isinstance(count, bool)
            if not is_number and not (isinstance(count, Tensor) and count.dim() == 0):
                shape = tuple(count.shape) if isinstance(count, Tensor) else f"a {type(count).__name__}"
                raise UserCodeError(f"{where} returned {shape} as the count; expected a number or a scalar tensor")
        require_scalar(value, where, "the mean over the batch, or (sum, count)")
        require_gradient(value, where, "")
        with torch.no_grad():
            model.eval()
            self._measured(model, batch)
            model.train()
        return self.loss_of(replica, batch)

    def meters(self) -> dict[str, Metric]:
        """Return new metrics for one evaluation, the loss first."""
        return {
            "loss": Quotient("loss", higher_is_better=False),
            **{name: Quotient(name, higher_is_better=up) for name, up in self.recipe.higher_is_better.items()},
        }

    def observe(self, meters: dict[str, Metric], model: nn.Module, batch: Batch, rows: int) -> None:
        """Add a batch to the metrics."""
        loss = self.loss_of(model, batch)
        total, count = loss if isinstance(loss, tuple) else (loss * rows, torch.tensor(rows, device=self._device))
        meters["loss"].update(total, count)
        for name, pair in self._measured(model, batch).items():
            meters[name].update(*(torch.as_tensor(value, device=self._device) for value in pair))

    def _measured(self, model: nn.Module, batch: Batch) -> Mapping[str, tuple[Any, Any]]:
        if self.recipe.metrics is None:
            return {}
        found = self.recipe.metrics(model, batch.x)
        where, expected = f"recipe {self._label}: Recipe.metrics", "expected {name: (sum, count)}"
        if not isinstance(found, Mapping):
            raise UserCodeError(f"{where} returned a {type(found).__name__}; {expected}")
        if set(found) != set(self.recipe.higher_is_better):
            known = ", ".join(sorted(self.recipe.higher_is_better)) or "nothing"
            raise UserCodeError(
                f"{where} returned {', '.join(sorted(map(str, found))) or 'nothing'} and Recipe.higher_is_better names "
                f"{known}; name each metric there, True where a higher value is the better one"
            )
        for name, pair in found.items():
            if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(map(_is_number, pair)):
                raise UserCodeError(f"{where} returned {_shown(pair)} as {name}; {expected}, two numbers")
        return found

    def objective(self, metric: str, path: str) -> Objective:
        """Return a metric that decides something, with its direction.

        Raises:
            ConfigurationError: The recipe has no such metric, or no validation data.
        """
        if self.recipe.validation is None:
            if (metric, path) == ("val/loss", "checkpoint.metric"):  # the default: no checkpoint is the best one
                return Objective(metric, higher_is_better=False)
            raise ConfigurationError(f"{path}: {metric} is never measured: Recipe.validation of {self._label} is None")
        known = {f"val/{name}": meter for name, meter in self.meters().items()}
        if metric not in known:
            raise ConfigurationError(
                f"{path}: unknown metric {metric!r}; known are {', '.join(known)}{did_you_mean(metric, known)}; "
                "others are named in Recipe.higher_is_better"
            )
        return Objective(metric, known[metric].higher_is_better)


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.dim() == 0
    return not isinstance(value, str) and hasattr(value, "__float__")


def _shown(value: Any) -> str:
    return f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.60}"
