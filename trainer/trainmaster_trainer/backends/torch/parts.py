"""What is trained, before it is put behind DDP: from the parts of the spec, or from a recipe."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from trainmaster_api.spec.training import Training

from trainmaster_trainer.checkpoint.state import seed_everything
from trainmaster_trainer.context import Context, Report, ReportKind
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.models import build_model
from trainmaster_trainer.recipe.call import optimizer_of, recipe_of
from trainmaster_trainer.recipe.data import RecipeData
from trainmaster_trainer.recipe.task import RecipeTask
from trainmaster_trainer.references import resolve
from trainmaster_trainer.tasks import Trained, Unit, build_task

from .optim import build_optimizer
from .schedules.base import Shape


@dataclass(frozen=True)
class Parts:
    """What is trained.

    Attributes:
        label: The model, for sentences.
        data: Rows with their split, on the device.
        task: What is minimised and measured.
        model: On the device.
        optimizer: Makes the optimizer; after the model is what it stays.
        schedule: A recipe's own.
        is_own: Whether code of the user's takes part in a step.
        keeps_rates: Whether the groups of the optimizer keep their own learning rates as the peak.
    """

    label: str
    data: Prepared
    task: Trained
    model: nn.Module
    optimizer: Callable[[nn.Module], Any]
    schedule: Shape | None = None
    is_own: bool = False
    keeps_rates: bool = False


def parts_of(context: Context, data: Prepared | None = None) -> Parts:
    """Return what is trained; the same on every rank and in every call.

    Args:
        context: The interface to the runtime.
        data: That of an earlier call, which isn't read again; a recipe's always comes from its function.
    """
    if (recipe := context.job.spec.training.recipe) is not None:
        resolve(recipe.function, "recipe.function")  # importing it may draw, and it is imported once only
    # the same draws on every rank and in every attempt: a user's class may use them in its constructor
    seed_everything(context.job.spec.training.loop.seed, 0, 0)
    found = _named(context, data) if context.job.spec.training.recipe is None else _of_recipe(context)
    for each in (found.task.module, *found.task.states.values()):
        if isinstance(each, nn.Module):
            each.to(context.device)
    return found


def _named(context: Context, data: Prepared | None) -> Parts:
    training = context.job.spec.training
    if data is None:
        data = load_data(context.job, context.base_dir, os.environ, lambda words: _say(context, words))
        data.move(context.device)
    unit = Unit(data.target_mean, data.target_std)
    task = build_task(training.task, len(data.rows.labels), unit, has_weights=data.has_weights)
    torch.manual_seed(training.loop.seed)  # the same initial weights on every rank and for every world size
    model = build_model(training.model, data.inputs, task.outputs).to(context.device)
    return Parts(
        training.model.label, data, task, model, lambda model: build_optimizer(training.optimizer, model),
        is_own=_is_own(training, (training.model, training.task.loss_or_default)),
    )  # fmt: skip


def _of_recipe(context: Context) -> Parts:
    training, spec = context.job.spec.training, context.job.spec.training.recipe
    assert spec is not None
    recipe = recipe_of(spec, context.base_dir, context.rank, context.world_size)
    data = RecipeData.of(recipe, spec.function, spec.batch_size)
    data.move(context.device)
    # before the user's optimizer is made of its parameters
    recipe.model.to(context.device)
    own = optimizer_of(recipe, spec.function)
    return Parts(
        spec.function, data, RecipeTask(recipe, spec.function, context.device), recipe.model,
        lambda model: build_optimizer(training.optimizer, model) if own is None else own,
        schedule=recipe.schedule, is_own=True, keeps_rates=own is not None,
    )  # fmt: skip


def _is_own(training: Training, parts: tuple[Any, ...]) -> bool:
    return any(part.FAMILY.get(part.name) is None for part in (*parts, training.optimizer, training.schedule))


def states_of(task: Trained) -> Mapping[str, Any]:
    """Return the states of what else changes while training."""
    return {name: each.state_dict() for name, each in task.states.items()}


def _say(context: Context, words: str) -> None:
    """Report how far reading the data is; a run that is reading isn't stalled."""
    if context.rank == 0:
        context.report(Report(kind=ReportKind.READING, step=0, total_steps=0, epoch=0, message=words))
