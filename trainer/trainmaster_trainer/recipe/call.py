"""Calls the user's function and checks what it returns, before anything is done with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from trainmaster_api.spec.own import RECIPE_CALL
from trainmaster_api.spec.own import Recipe as RecipeSpec

from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.references import call, resolve

from . import Optimizers, Recipe


def recipe_of(spec: RecipeSpec, base_dir: Path, rank: int, world_size: int) -> Recipe:
    """Return the user's recipe.

    Args:
        spec: `training.recipe`.
        base_dir: Offered to the function; so are rank and world size.
        rank: This rank.
        world_size: Number of ranks.

    Raises:
        ConfigurationError: The arguments don't fit, or it isn't a recipe; all problems at once.
    """
    target = resolve(spec.function, "recipe.function")
    offered = {"base_dir": base_dir, "rank": rank, "world_size": world_size}
    found = call(target, "recipe", RECIPE_CALL, spec.args, offered=offered)
    if not isinstance(found, Recipe):
        raise ConfigurationError(
            f"recipe.function {spec.function} returned {_kind(found)}; expected a trainmaster_trainer.Recipe"
        )
    problems = _problems(found)
    if problems:
        raise ConfigurationError(f"recipe.function {spec.function}: {'; '.join(problems)}")
    return found


def optimizer_of(recipe: Recipe, label: str) -> torch.optim.Optimizer | Optimizers | None:
    """Return the recipe's own optimizer, if it has one.

    Raises:
        ConfigurationError: It isn't one, or it doesn't train the model.
    """
    found: Any = recipe.optimizer
    if found is None:
        return None
    trained = [parameter for parameter in recipe.model.parameters() if parameter.requires_grad]
    if not isinstance(found, torch.optim.Optimizer | Optimizers):
        found = found(trained)
    if not isinstance(found, torch.optim.Optimizer | Optimizers):
        raise ConfigurationError(
            f"recipe.function {label}: Recipe.optimizer returned {_kind(found)}; expected a torch.optim.Optimizer or "
            "trainmaster_trainer.Optimizers"
        )
    groups = [id(parameter) for group in found.param_groups for parameter in group["params"]]
    strangers = set(groups) - {id(parameter) for parameter in recipe.model.parameters()}
    if strangers:
        raise ConfigurationError(
            f"recipe.function {label}: Recipe.optimizer has {len(strangers)} parameters that aren't in Recipe.model; "
            "only those of the model are saved and synchronized between workers: make them a part of it"
        )
    return found


def _problems(recipe: Recipe) -> list[str]:
    problems = []
    if not isinstance(recipe.model, nn.Module):
        problems.append(f"Recipe.model is {_kind(recipe.model)}; expected a torch.nn.Module")
    elif not any(parameter.requires_grad for parameter in recipe.model.parameters()):
        problems.append("Recipe.model has no trainable parameters")
    for name in ("loss", "metrics", "collate", "schedule"):
        value = getattr(recipe, name)
        if not callable(value) and not (value is None and name != "loss"):
            expected = "(model, batch)" if name in ("loss", "metrics") else "one argument"
            problems.append(f"Recipe.{name} is {_kind(value)}; expected a function of {expected}")
    if isinstance(recipe.loss, nn.Module) and any(each.requires_grad for each in recipe.loss.parameters()):
        problems.append("Recipe.loss has parameters of its own, which nothing would train; move them into the model")
    if recipe.optimizer is not None and not (
        isinstance(recipe.optimizer, torch.optim.Optimizer | Optimizers) or callable(recipe.optimizer)
    ):
        problems.append(f"Recipe.optimizer is {_kind(recipe.optimizer)}; expected an optimizer, or a function")
    if recipe.metrics is None and recipe.higher_is_better:
        problems.append("Recipe.higher_is_better names metrics, and Recipe.metrics is None")
    for name, each in recipe.state.items():
        missing = [half for half in ("state_dict", "load_state_dict") if not callable(getattr(each, half, None))]
        if missing:
            problems.append(f"Recipe.state[{name!r}] is {_kind(each)} without {' and '.join(missing)}")
    return problems


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
