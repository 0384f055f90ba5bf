"""Devices, nodes and strategy of a Lightning Trainer: those of our ranks, whatever the program says."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from trainmaster_trainer.context import Context
from trainmaster_trainer.errors import ConfigurationError

_STARTS_PROCESSES = re.compile("_(spawn|notebook|fork)(?=_|$)")
_SILENT = {"devices": ("auto", -1, "-1"), "strategy": ("auto",)}
_GPUS = ("gpu", "cuda")


def follow(context: Context, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments that make a Trainer part of our ranks, and what the program had said otherwise.

    A strategy that the program has made keeps its options; what it says of processes and devices is set in it.

    Args:
        context: The ranks.
        given: Arguments of the Trainer by name.

    Raises:
        ConfigurationError: It asks for a GPU, and there is none.
    """
    _require_gpu(context, given.get("accelerator"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "0")) or -(-context.world_size // context.nodes)
    wanted: dict[str, Any] = {"devices": local, "num_nodes": context.world_size // local}
    strategy = given.get("strategy", "auto")
    other = _strategy(strategy, context.world_size)
    adapted = _adapt(strategy, local) if other is None and not isinstance(strategy, str) else []
    if other is not None:
        wanted["strategy"] = other
    said = [
        f"{name}={_shown(given[name])} became {value!r}"
        for name, value in wanted.items()
        if name in given and str(given[name]) != str(value) and given[name] not in _SILENT.get(name, ())
    ]
    plugins, dropped = _without_environments(given.get("plugins"))
    if dropped:
        wanted["plugins"] = plugins
    return wanted, [*said, *adapted, *dropped]


def unkept(strategy: Any) -> str:
    """Return what a strategy with a checkpoint of one file holds that isn't in it; empty: nothing."""
    state = getattr(strategy, "_ddp_comm_state", None)
    if state is not None and not isinstance(state, dist.ProcessGroup):
        return f"the communication hook has a state of its own ({type(state).__name__}) that no checkpoint holds"
    if getattr(strategy, "_model_averaging_period", None):
        return "the workers' weights differ between two averages (model_averaging_period), and rank 0's are saved"
    return ""


def _require_gpu(context: Context, accelerator: Any) -> None:
    name = accelerator if isinstance(accelerator, str) else type(accelerator).__name__.removesuffix("Accelerator")
    has_other = name.lower() == "gpu" and torch.backends.mps.is_available()  # Lightning's `gpu` is also a Mac's
    if name.lower() in _GPUS and not torch.cuda.is_available() and not has_other:
        asked = context.job.spec.cluster.workers.gpus
        how = "this worker sees none" if asked else "the workers of the job have none"
        what = "look at the driver of the node" if asked else "set cluster.workers.gpus"
        raise ConfigurationError(
            f"Lightning's Trainer is to train on a GPU (accelerator={_shown(accelerator)}), and {how}: {what}, or pass "
            "accelerator='auto'"
        )


def _strategy(given: Any, world_size: int) -> str | None:
    """Return the name of a strategy that replaces the program's; None: it stays."""
    name = given.lower() if isinstance(given, str) else ""
    if _STARTS_PROCESSES.search(name):
        return _STARTS_PROCESSES.sub("", name)  # with its other options, which are in its name
    is_single = name in ("auto", "single_device") or type(given).__name__.startswith("SingleDevice")
    return "ddp" if is_single and world_size > 1 else None


def _adapt(strategy: Any, local: int) -> list[str]:
    """Set what a strategy has of processes, devices and where it runs; return what was set."""
    said = []
    method = getattr(strategy, "_start_method", None)
    if method is not None and method != "popen":
        strategy._start_method = "popen"
        said.append(f"start_method={method!r} of the strategy became 'popen'")
    environment = getattr(strategy, "cluster_environment", None)
    if environment is not None:
        strategy.cluster_environment = None
        said.append(f"{type(environment).__name__} of the strategy isn't used")
    devices = getattr(strategy, "parallel_devices", None)
    if devices and len(devices) != local:
        strategy.parallel_devices = None
        said.append(f"{len(devices)} parallel_devices of the strategy became {local}")
    return said


def _without_environments(plugins: Any) -> tuple[Any, list[str]]:
    """Return a Trainer's plugins without those that say where it runs, and what was left out."""
    found = plugins if isinstance(plugins, list | tuple) else [] if plugins is None else [plugins]
    left = [each for each in found if not _is_environment(each)]
    return left or None, [f"plugins: {_shown(each)} isn't used" for each in found if _is_environment(each)]


def _is_environment(plugin: Any) -> bool:
    return any(base.__name__ == "ClusterEnvironment" for base in type(plugin).__mro__)


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | list | tuple | None) else type(value).__name__
