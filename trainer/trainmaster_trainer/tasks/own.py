"""Losses and metrics of the user's own: references to code, or entry points of installed packages."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from trainmaster_api.spec.part import Part

from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.references import arguments, call, names_argument

from .base import Kind
from .losses.base import Loss
from .metrics.base import Metric


class FunctionMetric(Metric):
    """A function (outputs, targets) -> number over a whole split: the rows of all ranks are gathered for it.

    Args:
        name: Name in metrics.jsonl.
        function: The function.
        higher_is_better: Its direction.
    """

    def __init__(self, name: str, function: Callable[[Tensor, Tensor], Any], *, higher_is_better: bool) -> None:
        super().__init__()
        self.name, self.higher_is_better = name, higher_is_better
        self._function = function
        self.add_state("outputs", merge="cat")
        self.add_state("targets", merge="cat")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Collect the rows."""
        self.append("outputs", output)
        self.append("targets", target)

    def compute(self) -> float:
        """Call the function."""
        return float(self._function(self["outputs"], self["targets"]))


def metric_factory(target: Any, part: Part, name: str, path: str, kind: Kind) -> Callable[[], Metric]:
    """Return what makes the user's metric, after making one.

    Args:
        target: A subclass of `Metric`, or a function (outputs, targets) -> number with an attribute `higher_is_better`.
        part: Its part in the spec.
        name: Name in metrics.jsonl.
        path: The part's path.
        kind: The task; `outputs` is offered to the constructor.

    Raises:
        ConfigurationError: It is neither, or its arguments don't fit.
    """
    if not inspect.isclass(target):
        direction = getattr(target, "higher_is_better", None)
        if not isinstance(direction, bool):
            raise ConfigurationError(
                f"{path} {part.label}: set {getattr(target, '__name__', 'its')}.higher_is_better to True or False, or "
                "make it a subclass of trainmaster_trainer.tasks.metrics.Metric"
            )
        function = partial(target, **arguments(target, path, part.FAMILY.call, part.args, {"outputs": kind.outputs}))
        return lambda: FunctionMetric(name, function, higher_is_better=direction)
    if not issubclass(target, Metric):
        raise ConfigurationError(
            f"{path} {part.label}: is neither a subclass of trainmaster_trainer.tasks.metrics.Metric nor a function "
            "(outputs, targets) -> number, so it can't be merged across workers"
        )

    def build() -> Metric:
        found: Metric = call(target, path, part.FAMILY.call, part.args, offered={"outputs": kind.outputs})
        if not isinstance(getattr(found, "higher_is_better", None), bool):
            raise ConfigurationError(f"{path} {part.label}: set higher_is_better to True or False")
        return found

    build()
    return build


def own_loss(target: Any, part: Part, path: str) -> Loss:
    """Return the user's loss: a class whose objects are callable, or a function, (output, target) -> mean.

    With an argument `weight` it gets the weights of the rows, if they have any.

    Raises:
        ConfigurationError: Its arguments don't fit, or it has parameters, which nothing would train.
    """
    if not inspect.isclass(target):
        function = partial(target, **arguments(target, path, part.FAMILY.call, part.args))
        return Loss(function, function, _takes_weights(target) and "weight" not in part.args)
    found = call(target, path, part.FAMILY.call, part.args)
    if not callable(found):
        raise ConfigurationError(f"{path} {part.label}: its instances can't be called with (output, target)")
    if isinstance(found, nn.Module) and any(p.requires_grad for p in found.parameters()):
        raise ConfigurationError(
            f"{path} {part.label}: has its own parameters, which are neither trained nor synchronized between workers; "
            "move them into the model"
        )
    return Loss(found, found, _takes_weights(found.forward if isinstance(found, nn.Module) else found))


def _takes_weights(function: Callable[..., Any]) -> bool:
    """Return whether a loss takes the weights of rows: its signature names `weight`, and it isn't one of torch's own.

    There `weight` is another thing: weights of classes in `cross_entropy`, and a mean over the weights in `mse_loss`.
    """
    if str(getattr(function, "__module__", "")).partition(".")[0] == "torch":
        return False
    return names_argument(function, "weight")
