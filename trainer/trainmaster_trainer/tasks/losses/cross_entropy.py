"""Cross-entropy of logits of (batch, classes) and classes of (batch,)."""

from __future__ import annotations

from functools import partial

from torch.nn import functional as F  # noqa: N812 - PyTorch's own name
from trainmaster_api.spec.task import CrossEntropyArgs
from trainmaster_api.spec.task import Loss as LossPart

from .base import Loss, mean_of


def build(part: LossPart) -> Loss:
    """Return it; reported without label smoothing."""
    smoothing = part.typed_args(CrossEntropyArgs).label_smoothing
    return Loss(mean_of(partial(F.cross_entropy, label_smoothing=smoothing)), mean_of(F.cross_entropy))
