"""The metrics that we ship, one file each: the module's name is the metric's, its `build` makes one for a task."""

from .base import Metric, merge_over_ranks

__all__ = ["Metric", "merge_over_ranks"]
