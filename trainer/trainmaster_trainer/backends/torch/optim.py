"""The optimizer: no decay on biases and norms, and a way to leave out a non-finite step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from trainmaster_api.spec.optimizer import AdamWArgs, Optimizer, SgdArgs

from trainmaster_trainer.errors import ConfigurationError

LARGEST = torch.finfo(torch.float32).max  # neither infinity nor NaN is at most this


def build_optimizer(spec: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW or SGD over the model's parameters, fused."""
    groups = parameter_groups(model, spec.weight_decay or 0.0)
    # fused: one kernel for all tensors, and the only form that takes found_inf without a host sync
    if spec.name == "adamw":
        adamw = spec.typed_args(AdamWArgs)
        beta1, beta2 = adamw.betas
        return torch.optim.AdamW(groups, lr=spec.lr, betas=(beta1, beta2), eps=adamw.eps, fused=True)
    if spec.name != "sgd":
        raise ConfigurationError(f"optimizer {spec.label} is not one that this version can build")
    sgd = spec.typed_args(SgdArgs)
    return torch.optim.SGD(groups, lr=spec.lr, momentum=sgd.momentum, nesterov=sgd.nesterov, fused=True)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return two groups of parameters: matrices decay, vectors (biases, norms) don't. An empty group is left out."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
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
