"""Devices, nodes and strategy of a Lightning Trainer: those of our ranks, whatever the program says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from trainmaster_trainer.context import Context

_STARTS_PROCESSES = ("spawn", "notebook", "fork")
_SILENT = {"devices": ("auto", -1, "-1"), "strategy": ("auto",)}


def follow(context: Context, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments that make a Trainer part of our ranks, and what the program had said otherwise.

    Args:
        context: The ranks.
        given: Arguments of the Trainer by name.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "0")) or -(-context.world_size // context.nodes)
    wanted: dict[str, Any] = {"devices": local, "num_nodes": context.world_size // local}
    strategy = _strategy(given.get("strategy", "auto"), context.world_size)
    if strategy is not None:
        wanted["strategy"] = strategy
    said = [
        f"{name}={given[name]!r} became {value!r}"
        for name, value in wanted.items()
        if name in given and str(given[name]) != str(value) and given[name] not in _SILENT.get(name, ())
    ]
    return wanted, said


def _strategy(given: Any, world_size: int) -> str | None:
    """Return the strategy that replaces the program's; None: it stays."""
    name = given if isinstance(given, str) else getattr(given, "_start_method", "") or ""
    starts = any(word in name for word in _STARTS_PROCESSES)
    if world_size == 1:
        return "auto" if starts else None
    is_single = type(given).__name__.startswith("SingleDevice")
    return "ddp" if given == "auto" or is_single or starts else None
