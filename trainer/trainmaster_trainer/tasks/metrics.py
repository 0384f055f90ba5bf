"""Metrics of a task: their names and directions."""

from __future__ import annotations


def higher_is_better(metric: str) -> bool:
    """Direction of a metric, from its name."""
    return metric.rpartition("/")[2] not in {"loss", "rmse", "mae"}
