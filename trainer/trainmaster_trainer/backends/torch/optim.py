"""The optimizer: no decay on biases and norms, and a way to leave out a non-finite step."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from trainmaster_api.spec.optimizer import Optimizer

from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.references import call, resolve
from trainmaster_trainer.registry import Registry

OPTIMIZERS: Registry[Callable[[Optimizer, list[dict[str, Any]]], torch.optim.Optimizer]] = Registry(
    "optimizer", f"{__package__}.optimizers", "trainmaster.optimizers"
)
LARGEST = torch.finfo(torch.float32).max  # neither infinity nor NaN is at most this


def build_optimizer(part: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer over the model's parameters.

    A class or an entry point is called with the parameters, `lr`, `weight_decay` if `weightDecay` is given, and `args`.

    Raises:
        ConfigurationError: There is none of that name, its arguments don't fit, or it isn't an optimizer.
    """
    groups = parameter_groups(model, part.weight_decay)
    if not groups:
        raise ConfigurationError("model: has no parameter to train")
    if OPTIMIZERS.is_shipped(part.name) and part.name is not None:
        return OPTIMIZERS.get(part.name, "optimizer.name")(part, groups)
    target = (
        resolve(part.reference, "optimizer.class")
        if part.reference
        else OPTIMIZERS.get(part.name or "", "optimizer.name")
    )
    if inspect.isclass(target) and not issubclass(target, torch.optim.Optimizer):
        raise ConfigurationError(f"optimizer {part.label} is no subclass of torch.optim.Optimizer")
    fields = {"lr": part.lr} | ({} if part.weight_decay is None else {"weight_decay": part.weight_decay})
    found = call(target, "optimizer", part.FAMILY.call, part.args, groups, fields=fields)
    if not isinstance(found, torch.optim.Optimizer):
        raise ConfigurationError(
            f"optimizer {part.label} made a {type(found).__name__}; expected a torch.optim.Optimizer"
        )
    closure = inspect.signature(found.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ConfigurationError(
            f"optimizer {part.label} needs a closure that computes the loss again; a step here computes it once"
        )
    return found


def parameter_groups(model: nn.Module, weight_decay: float | None) -> list[dict[str, Any]]:
    """Return groups: matrices decay, vectors (biases, norms) don't; without a decay one group: the class decides."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if weight_decay is None:
        return [{"params": trained}] if trained else []
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def skips_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether `optimizer.step()` itself leaves weights and moments alone while `optimizer.found_inf` is 1.

    `found_inf` is how `torch.amp.GradScaler` tells a fused kernel to do nothing, without reading the flag on the host.
    Only torch's own optimizers do that, and only fused; a subclass may have a `step` of its own.
    """
    return type(optimizer).__module__.startswith("torch.optim.") and bool(optimizer.defaults.get("fused"))


def step_unless_bad(optimizer: torch.optim.Optimizer, bad_steps: Tensor) -> None:
    """Make the update, unless `bad_steps` (a device scalar) is above 0: then no weight and no moment changes.

    For an optimizer without a fused kernel the host has to look, which waits for the device once per step. That is the
    price of the guarantee; on a CPU it is nothing.
    """
    if skips_on_device(optimizer):
        optimizer.found_inf = bad_steps.clamp(max=1)  # type: ignore[attr-defined]
        optimizer.step()
    elif not bool(bad_steps):
        optimizer.step()


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
