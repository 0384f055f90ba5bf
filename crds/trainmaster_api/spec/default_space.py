"""What a `hyperparameterSearch` varies where it names no space: a table over the job. Pure.

Only what has the same meaning everywhere is in it: rates by an order of magnitude in both directions, the batch by a
factor of two, and dropout. What only its user knows isn't guessed; docs/tuning.md has the table for people.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from .model import DROPOUT, MODELS
from .optimizer import MOST_DECAY, MOST_RATE
from .parameter import Parameter
from .training import Training

FACTOR = 10
"""A rate is searched from the job's value divided by this to the product of both."""
_TRANSFORMERS_RATE = 5e-5  # the default of `transformers.TrainingArguments`


def _rate(value: Any, most: float = math.inf) -> Parameter | None:
    """Return a range around a rate; None: it is no number above 0."""
    if not _is_number(value) or value <= 0:
        return None
    low, high = (float(f"{each:.6g}") for each in (value / FACTOR, value * FACTOR))
    high = min(high, most)
    is_range = 0 < low < high and math.isfinite(high)
    return Parameter(min=low, max=high, scale="log", type="float") if is_range else None


def _batch(value: Any, multiple: int = 1, most: float = math.inf) -> Parameter | None:
    """Return half, same and double of a batch, as far as they are possible; None: only one is."""
    if not _is_number(value) or value != int(value) or value < 1:
        return None
    sizes = [int(value) // 2] * (value % 2 == 0) + [int(value), int(value) * 2]
    fitting: list[Any] = [each for each in sizes if each % multiple == 0 and each <= most]
    return Parameter(values=fitting) if len(fitting) > 1 else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


BY_NAME: dict[str, Callable[[Any], Parameter | None]] = {
    "lr": _rate,
    "learning_rate": _rate,
    "weight_decay": _rate,
    "batch_size": _batch,
    "dropout": lambda value: DROPOUT if _is_number(value) else None,
}
"""Arguments of code of the user's own whose names say what they are; they are searched where the job has a number."""


def default_space(training: Training, workers: int) -> dict[str, Parameter]:
    """Return what is searched of a job that doesn't say it; empty: nothing follows from it.

    Args:
        training: What is trained.
        workers: Of the job; its batches are multiples of them.
    """
    if training.script is not None:
        return _named(training.script.parameters)
    if training.lightning is not None:
        module, data = training.lightning.module, training.lightning.datamodule
        below = data.args if data is not None else {}
        return _named({**below, **module.args})
    if training.transformers is not None:
        arguments = {"learning_rate": _TRANSFORMERS_RATE, **training.transformers.arguments}
        return _named(arguments, leave_out=("batch_size",)) | _batches(training, workers)
    if training.recipe is not None:  # it may have an optimizer of its own, beside which ours says nothing
        own = _named(training.recipe.args, "recipe.args.")
        return own | _batches(training, workers) if own else {}
    return _rates(training) | _batches(training, workers) | _arguments(training)


def _rates(training: Training) -> dict[str, Parameter]:
    optimizer = training.optimizer
    rates = {
        "optimizer.lr": _rate(optimizer.lr, MOST_RATE),
        "optimizer.weightDecay": _rate(optimizer.weight_decay, MOST_DECAY),
    }
    return {name: each for name, each in rates.items() if each is not None}


def _batches(training: Training, workers: int) -> dict[str, Parameter]:
    if training.recipe is None and training.data_or_none is None:
        return {}
    data = training.data
    multiple = workers * training.loop.gradient_accumulation
    found = _batch(data.batch_size, multiple, data.largest_batch)
    name = "recipe.batchSize" if training.recipe is not None else "data.batchSize"
    return {name: found} if found is not None else {}


def _arguments(training: Training) -> dict[str, Parameter]:
    model = training.model_or_none
    if model is None:
        return {}
    shipped = MODELS.get(model.name)
    if shipped is None:
        return _named(model.args, "model.args.")
    return {f"model.args.{name}": each for name, each in shipped.searched.items()}


def _named(arguments: Mapping[str, Any], prefix: str = "", leave_out: tuple[str, ...] = ()) -> dict[str, Parameter]:
    found = {name: make(arguments[name]) for name, make in BY_NAME.items() if name in arguments}
    return {f"{prefix}{name}": each for name, each in found.items() if each is not None and name not in leave_out}
