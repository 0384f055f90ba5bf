"""AdamW."""

from __future__ import annotations

from typing import Any

import torch
from trainmaster_api.spec.optimizer import AdamWArgs, Optimizer


def build(part: Optimizer, groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    """Return it, fused: one kernel for all tensors, and the only form that takes found_inf without a host sync."""
    args = part.typed_args(AdamWArgs)
    beta1, beta2 = args.betas
    return torch.optim.AdamW(groups, lr=part.lr, betas=(beta1, beta2), eps=args.eps, fused=True)
