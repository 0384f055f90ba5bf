"""The optimizer: fused, no decay on biases and norms, and able to skip a non-finite step on the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from trainmaster_api.spec.optimizer import AdamWArgs, Optimizer, SgdArgs

from trainmaster_trainer.errors import ConfigurationError

from .no_dynamo import SGD, AdamW


def build_optimizer(spec: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW or SGD over two groups: matrices decay, vectors (biases, norms) don't."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": spec.weight_decay or 0.0},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # fused: one kernel for all tensors, and the only form that takes found_inf without a host sync
    if spec.name == "adamw":
        adamw = spec.typed_args(AdamWArgs)
        beta1, beta2 = adamw.betas
        return AdamW(groups, lr=spec.lr, betas=(beta1, beta2), eps=adamw.eps, fused=True)
    if spec.name != "sgd":
        raise ConfigurationError(f"optimizer {spec.label} is not one that this version can build")
    sgd = spec.typed_args(SgdArgs)
    return SGD(groups, lr=spec.lr, momentum=sgd.momentum, nesterov=sgd.nesterov, fused=True)


def total_norm(gradients: list[Tensor]) -> Tensor:
    """Global norm of gradients on one device, a scalar there.

    The same numbers as `torch.nn.utils.get_total_norm`, without its grouping by device and type, which takes three
    times as long as the norm itself where tensors are small.
    """
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))  # type: ignore[no-any-return]


def clip_(gradients: list[Tensor], norm: Tensor, most: float) -> None:
    """Scale gradients in place so that their norm is at most `most`, as `torch.nn.utils.clip_grads_with_norm_` does."""
    torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
