"""Mean squared error of the standardised target."""

from __future__ import annotations

from torch.nn import functional as F  # noqa: N812 - PyTorch's own name
from trainmaster_api.spec.task import Loss as LossPart

from .base import Loss, standardised


def build(part: LossPart) -> Loss:
    """Return it."""
    return standardised(F.mse_loss)
