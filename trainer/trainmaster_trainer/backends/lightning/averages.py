"""Sums of metrics that are logged once per epoch: a checkpoint within an epoch must hold them.

Lightning drops them, so what an epoch's average decides (early stopping, a plateau schedule) would differ after a
restart. It has no public way to them; where its internals look different, nothing is kept.
"""

from __future__ import annotations

from typing import Any

import torch


def state(trainer: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Return the sums of the epoch that runs, by Lightning's key."""
    found = {}
    for key, metric in _results(trainer).items():
        meta = getattr(metric, "meta", None)
        if meta is None or not getattr(metric, "is_tensor", False) or not getattr(meta, "on_epoch", False):
            continue
        names = ["value", "cumulated_batch_size"] if meta.is_mean_reduction else ["value"]
        found[key] = {name: getattr(metric, name).detach().cpu().clone() for name in names}
    return found


def add(trainer: Any, kept: dict[str, dict[str, torch.Tensor]]) -> None:
    """Add kept sums to those of the first batch after a restart; what was added is removed from `kept`."""
    results = _results(trainer) if kept else {}
    for key in [key for key in kept if key in results]:
        metric = results[key]
        for name, value in kept.pop(key).items():
            now = getattr(metric, name)
            before = value.to(now.device)
            is_extreme = metric.meta.is_max_reduction or metric.meta.is_min_reduction
            setattr(metric, name, metric.meta.reduce_fx(before, now) if is_extreme else before + now)


def _results(trainer: Any) -> dict[str, Any]:
    found = getattr(trainer.fit_loop.epoch_loop, "_results", None)
    return found if isinstance(found, dict) else {}
