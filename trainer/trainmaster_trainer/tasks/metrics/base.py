"""What a metric is: an object that sees batches, is merged over ranks, and gives one number.

The shape is torchmetrics': `add_state` in the constructor, `update` per batch, `compute` at the end. What goes over the
network is decided here, once: states that are summed travel together in a single all-reduce, states that are
concatenated are gathered in the order in which one process would have seen the rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor


class Metric(ABC):
    """A number that measures a model's outputs over a whole split.

    A subclass sets `name` and `higher_is_better`, declares its state with `add_state`, and implements `update` and
    `compute`. An object is used for one evaluation.
    """

    name: str
    """Name in the spec and in metrics.jsonl, without the split: `accuracy`."""
    higher_is_better: bool
    """Direction: for the best checkpoint, early stopping and plateau."""

    def __init__(self) -> None:
        self.summed: dict[str, Tensor] = {}
        self.gathered: dict[str, list[Tensor]] = {}

    def add_state(self, name: str, default: Tensor | None = None, merge: Literal["sum", "cat"] = "sum") -> None:
        """Declare a state of the metric.

        Args:
            name: Its name.
            default: Zeros in its shape, float64 unless whole numbers are exact in another type; for `sum` only.
            merge: `sum`: a tensor that is added up over batches and ranks. `cat`: tensors with one entry per row in
                dimension 0, which `append` collects; they take memory for the whole split on every rank.
        """
        if merge == "sum":
            assert default is not None, "a summed state needs an initial tensor of zeros"
            self.summed[name] = default
        else:
            self.gathered[name] = []

    def add(self, name: str, value: Tensor) -> None:
        """Add a batch's value to a state that is summed."""
        # the first batch decides on the device: a metric needn't know it
        self.summed[name] = self.summed[name].to(value.device) + value

    def append(self, name: str, value: Tensor) -> None:
        """Collect a batch's rows, (batch, ...), in a state that is concatenated."""
        self.gathered[name].append(value.detach())

    def __getitem__(self, name: str) -> Tensor:
        """Return a state: the sum, or all rows in one tensor."""
        return self.summed[name] if name in self.summed else torch.cat(self.gathered[name])

    @abstractmethod
    def update(self, output: Tensor, target: Tensor) -> None:
        """See a batch.

        Args:
            output: What `Task.decode` makes of the model's output: float32 logits of (batch, classes), or float64
                predictions of (batch,) in the target's unit.
            target: int64 classes of (batch,), or float64 numbers of (batch,) in the target's unit.
        """

    @abstractmethod
    def compute(self) -> float:
        """Return the number for everything seen, by all ranks once merged."""


def merge_over_ranks(metrics: Sequence[Metric], world_size: int, device: torch.device) -> None:
    """Give every rank the state of all. Collective; row i of rank r is row i * world_size + r of one process."""
    if world_size == 1:
        return
    _all_reduce([(m.summed, name) for m in metrics for name in m.summed], device)
    for metric in metrics:
        for name, parts in metric.gathered.items():
            metric.gathered[name] = [_gather_rows(parts, world_size, device)]


def _all_reduce(states: list[tuple[dict[str, Tensor], str]], device: torch.device) -> None:
    """Sum all states in one message; float64 is exact for counts up to 2**53."""
    flat = [holder[name].to(device, torch.float64).flatten() for holder, name in states]
    if not flat:
        return
    total = torch.cat(flat)
    dist.all_reduce(total)
    for (holder, name), part in zip(states, torch.split(total, [len(f) for f in flat]), strict=True):
        holder[name] = part.reshape(holder[name].shape).to(holder[name].dtype)


def _gather_rows(parts: list[Tensor], world_size: int, device: torch.device) -> Tensor:
    """Concatenate the rows of all ranks; a rank may have none, and then doesn't know their shape."""
    mine = torch.cat(parts) if parts else None
    kinds: list[tuple[int, tuple[int, ...], torch.dtype] | None] = [None] * world_size
    dist.all_gather_object(kinds, None if mine is None else (len(mine), tuple(mine.shape[1:]), mine.dtype))
    known = [kind for kind in kinds if kind is not None]
    longest, shape, dtype = max(kind[0] for kind in known), known[0][1], known[0][2]
    padded = torch.zeros((longest, *shape), dtype=dtype, device=device)
    if mine is not None:
        padded[: len(mine)] = mine
    everyone = [torch.empty_like(padded) for _ in range(world_size)]
    dist.all_gather(everyone, padded)
    there = torch.zeros((longest, world_size), dtype=torch.bool, device=device)
    for other, kind in enumerate(kinds):
        there[: kind[0] if kind else 0, other] = True
    return torch.stack(everyone, dim=1)[there]
