"""The optimizer: no decay on biases and norms, and a way to skip a non-finite step."""

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
        ConfigurationError: The name is unknown, its arguments don't fit, or it isn't an optimizer.
    """
    groups = parameter_groups(model, part.weight_decay)
    if not groups:
        raise ConfigurationError("model: has no trainable parameters")
    if OPTIMIZERS.is_shipped(part.name) and part.name is not None:
        return OPTIMIZERS.get(part.name, "optimizer.name")(part, groups)
    target = (
        resolve(part.reference, "optimizer.class")
        if part.reference
        else OPTIMIZERS.get(part.name or "", "optimizer.name")
    )
    if inspect.isclass(target) and not issubclass(target, torch.optim.Optimizer):
        raise ConfigurationError(f"optimizer {part.label} is not a subclass of torch.optim.Optimizer")
    fields = {"lr": part.lr} | ({} if part.weight_decay is None else {"weight_decay": part.weight_decay})
    found = call(target, "optimizer", part.FAMILY.call, part.args, groups, fields=fields)
    if not isinstance(found, torch.optim.Optimizer):
        raise ConfigurationError(
            f"optimizer {part.label} returned a {type(found).__name__}; expected a torch.optim.Optimizer"
        )
    closure = inspect.signature(found.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ConfigurationError(
            f"optimizer {part.label} requires a closure that recomputes the loss, which is not supported"
        )
    return found


def parameter_groups(model: nn.Module, weight_decay: float | None) -> list[dict[str, Any]]:
    """Return the param groups: matrices decay, vectors don't; without `weight_decay` a single group."""
    # Decay pulls a weight towards 0, which regularizes a matrix and only distorts a bias or a norm's scale. Without a
    # value the group has no such key, and the class applies its own default.
    trained = [p for p in model.parameters() if p.requires_grad]
    if weight_decay is None:
        return [{"params": trained}] if trained else []
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def skips_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether `optimizer.step()` itself leaves weights and moments unchanged while `optimizer.found_inf` is 1.

    `found_inf` is how `torch.amp.GradScaler` makes a fused kernel a no-op, without reading the flag on the host. Only
    torch's own optimizers support it, and only fused ones; a subclass may override `step`.
    """
    return type(optimizer).__module__.startswith("torch.optim.") and bool(optimizer.defaults.get("fused"))


def step_unless_bad(optimizer: torch.optim.Optimizer, bad_steps: Tensor) -> None:
    """Make the update, unless `bad_steps` (a device scalar) is above 0: then no weight and no moment changes.

    For an optimizer without a fused kernel the host has to read the flag, which waits for the device once per step.
    That is the price of the guarantee; on a CPU it is free.
    """
    # A NaN in the moments would stay there, so a bad step has to be skipped and can't be repaired afterwards. `clamp`,
    # because the kernel expects 0 or 1 and `bad_steps` is a count.
    if skips_on_device(optimizer):
        optimizer.found_inf = bad_steps.clamp(max=1)  # type: ignore[attr-defined]
        optimizer.step()
    elif not bool(bad_steps):
        optimizer.step()


def set_lr(optimizer: torch.optim.Optimizer, *rates: float) -> None:
    """Set the learning rate of every group: one for all, or one for each."""
    for index, group in enumerate(optimizer.param_groups):
        group["lr"] = rates[index if len(rates) > 1 else 0]
