"""What a program may tell Trainmaster about its progress. Outside of a job every function here does nothing.

import trainmaster
trainmaster.report(step=step, total_steps=1000, loss=loss.item())
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainmaster_trainer import Optimizers, Recipe

__all__ = ["Optimizers", "Recipe", "checkpoint_dir", "parameters", "report", "should_stop"]

_listeners: list[Callable[[int | None, int | None, int | None, dict[str, float]], None]] = []
_stops: list[Callable[[], bool]] = []


def report(
    *, step: int | None = None, total_steps: int | None = None, epoch: int | None = None, **metrics: float
) -> None:
    """Report progress and metrics; every argument is optional. Cheap, and may be called in every step.

    Args:
        step: Steps done since the start of the whole training, not of this process.
        total_steps: Steps of the whole training.
        epoch: Epoch, from 0.
        **metrics: Newest values; a name that begins with `val_` or `eval_` is one of the validation. In a trial of a
            search, a call of rank 0 with the metric of the search is a validation: it returns once the search has
            decided, and doesn't if the trial is pruned.
    """
    for listener in _listeners:
        listener(step, total_steps, epoch, {name: _number(name, value) for name, value in metrics.items()})


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"trainmaster.report: {name} is no number but of type {type(value).__name__}; give each metric by its "
            "name, as in report(val_loss=0.5)"
        ) from None


def should_stop() -> bool:
    """Return whether the job wants to stop: save, then end."""
    return any(stop() for stop in _stops)


def parameters() -> dict[str, Any]:
    """Return the program's parameters, `script.parameters` with the values of a search; empty outside of a job."""
    found: dict[str, Any] = json.loads(os.environ.get("TRAINMASTER_PARAMETERS", "{}"))
    return found


def checkpoint_dir() -> Path | None:
    """Return the folder whose files are kept; None outside of a job."""
    found = os.environ.get("TRAINMASTER_CHECKPOINT_DIR")
    return Path(found) if found else None


def __getattr__(name: str) -> Any:
    """Return `Recipe` or `Optimizers`, imported when first needed: they import torch, and exist only where it does."""
    if name not in ("Optimizers", "Recipe"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import trainmaster_trainer

    return getattr(trainmaster_trainer, name)
