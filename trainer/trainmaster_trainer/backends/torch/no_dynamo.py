"""PyTorch's optimizers and DDP without its compiler.

Both load `torch._dynamo` (900 modules, as long as torch itself takes) before the first step, to be told that nothing is
compiled: optimizers mark the end of a graph, DDP reads a setting. Here nothing is compiled, so the same methods are
used without the wrappers that load it. Where something else has loaded it, or a future torch has other wrappers,
nothing changes but the time.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn import parallel


class _Eager(torch.optim.Optimizer):
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class AdamW(_Eager, torch.optim.AdamW):
    """torch.optim.AdamW; not for `differentiable=True`."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class SGD(_Eager, torch.optim.SGD):
    """torch.optim.SGD; not for `differentiable=True`."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class DistributedDataParallel(parallel.DistributedDataParallel):
    """torch.nn.parallel.DistributedDataParallel."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        with _compiler_settings():
            super().__init__(*arguments, **options)

    _inside_ddp_forward = contextmanager(inspect.unwrap(parallel.DistributedDataParallel._inside_ddp_forward))


@contextmanager
def _compiler_settings() -> Iterator[None]:
    """Answer what DDP asks the compiler for, with its default; it doesn't matter where nothing is compiled."""
    if "torch._dynamo" in sys.modules:
        yield
        return
    answers = SimpleNamespace(utils=SimpleNamespace(get_optimize_ddp_mode=lambda: "ddp_optimizer"))
    torch._dynamo = answers  # type: ignore[assignment]
    try:
        yield
    finally:
        if vars(torch).get("_dynamo") is answers:  # it may have been loaded in earnest meanwhile
            del torch._dynamo
