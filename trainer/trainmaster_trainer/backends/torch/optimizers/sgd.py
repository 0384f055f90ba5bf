"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from typing import Any

import torch
from trainmaster_api.spec.optimizer import Optimizer, SgdArgs


def build(part: Optimizer, groups: list[dict[str, Any]]) -> torch.optim.SGD:
    """Return it, fused: one kernel for all tensors, and the only form that takes found_inf without a host sync."""
    args = part.typed_args(SgdArgs)
    return torch.optim.SGD(groups, lr=part.lr, momentum=args.momentum, nesterov=args.nesterov, fused=True)
