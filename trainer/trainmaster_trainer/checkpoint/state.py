"""What a checkpoint holds, as bytes per file.

With DDP every rank has the same weights, so rank 0 writes them alone. Only the random states and the loss since the
last logged line differ; they are a few kilobytes that rank 0 gathers. Sharded state (FSDP) will bring one file per rank
into the same protocol.
"""

from __future__ import annotations

import copy
import io
import json
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

MODEL, OPTIMIZER, RANKS, LOOP = "model.safetensors", "optimizer.pt", "ranks.pt", "loop.json"
PARTS = "parts.pt"
RngState = dict[str, Any]
RankState = dict[str, Any]


@dataclass
class State:
    """State of a run after a step.

    Attributes:
        model: Parameters and buffers by name, on the CPU.
        optimizer: The optimizer's state_dict, on the CPU.
        ranks: One entry per rank: random states, loss since the last logged line, position in a stream if there is one.
        loop: JSON: step, early stopping.
        parts: State of the parts that have one (schedule, loss), by name.
        is_foreign: Whether it is the state of another run (run.resumeFrom); not saved.
    """

    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    ranks: list[RankState]
    loop: dict[str, Any]
    parts: dict[str, Any] = field(default_factory=dict)
    is_foreign: bool = False

    @classmethod
    def capture(
        cls,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        ranks: list[RankState],
        loop: dict[str, Any],
        parts: dict[str, Any] | None = None,
    ) -> State:
        """Return a copy that later steps don't change, so it can be written while training continues."""
        return cls(_copied(model.state_dict()), _copied(optimizer.state_dict()), ranks, loop, _copied(parts or {}))

    def files(self) -> dict[str, bytes]:
        """Return the content of each file of the checkpoint."""
        contiguous = {name: tensor.contiguous() for name, tensor in self.model.items()}
        return {
            MODEL: save(contiguous),
            OPTIMIZER: _dumped(self.optimizer),
            RANKS: _dumped(self.ranks),
            LOOP: json.dumps(self.loop).encode(),
            **({PARTS: _dumped(self.parts)} if self.parts else {}),
        }

    @classmethod
    def from_files(cls, files: dict[str, bytes]) -> State:
        """Return the state from verified files."""
        parts = _loaded(files[PARTS]) if PARTS in files else {}
        return cls(load(files[MODEL]), _loaded(files[OPTIMIZER]), _loaded(files[RANKS]), json.loads(files[LOOP]), parts)


def get_rng(device: torch.device | None = None) -> RngState:
    """Return this process's RNG states. Ours draws from torch only, but user code may use the others.

    Args:
        device: What the rank computes on; None: its current GPU if one is in use.
    """
    if device is None:
        is_on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        device = torch.device("cuda" if is_on_gpu else "cpu")
    kind, keys, *position = np.random.get_state()
    state: RngState = {
        "torch": torch.get_rng_state(),
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *position],
        "python": random.getstate(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng(state: RngState, device: torch.device | None = None) -> None:
    """Put this process's random states back; arguments as for `get_rng`."""
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_rng_state(state["torch"])
    kind, keys, *position = state["numpy"]
    np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), *position))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def seed_everything(seed: int, rank: int, step: int) -> None:
    """Seed all RNGs where no checkpoint has their state: a new run, or more workers than wrote the checkpoint."""
    derived = int(np.random.SeedSequence([seed, rank, step]).generate_state(1)[0])
    torch.manual_seed(derived)
    np.random.seed(derived)
    random.seed(derived)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return copy.deepcopy(value)  # a user's part may keep something that changes


def _dumped(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _loaded(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
