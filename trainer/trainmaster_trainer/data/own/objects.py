"""Objects of the user's iterable dataset: each epoch and each evaluation has a new one, made as the first was."""

from __future__ import annotations

import inspect
import random
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset
from trainmaster_api.spec.data import DATA_CALL, Data

from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.references import arguments, call


def is_iterable(found: Any) -> bool:
    """Return whether a dataset, or its class, is a stream: it has `__iter__` and no `__getitem__` of its own."""
    is_torchs = issubclass(found, IterableDataset) if inspect.isclass(found) else isinstance(found, IterableDataset)
    return is_torchs or (hasattr(found, "__iter__") and not hasattr(found, "__getitem__"))


class Objects:
    """Makes objects of an iterable dataset.

    Args:
        target: The user's class, or a function that returns the dataset.
        data: `spec.training.data`.
        base_dir: The job's folder.

    Raises:
        ConfigurationError: The arguments don't fit.
    """

    def __init__(self, target: Any, data: Data, base_dir: Path) -> None:
        self._target, self._data, self._base_dir = target, data, base_dir
        self.label = data.label
        # a function may return a map-style dataset, whose `split` is its own: only a class is asked
        given: dict[str, Any] = {}
        if inspect.isclass(target):
            given = arguments(target, "data", DATA_CALL, data.args, offered=self._offered("train", 0, 1))
        asked = {name for name in ("split", "rank", "world_size") if name in given and name not in data.args}
        self.by_split, self.by_rank = "split" in asked, {"rank", "world_size"} <= asked
        """Whether there is an object for each split; whether each rank reads its own part of the stream."""
        if len(asked & {"rank", "world_size"}) == 1:
            raise ConfigurationError(
                f"data.class {self.label}: takes only one of `rank` and `world_size`; a stream that is divided among "
                "the ranks needs both"
            )
        if self.by_rank and not self.by_split:
            raise ConfigurationError(
                f"data.class {self.label}: takes `rank` and `world_size` without `split`: items of a part of the "
                "stream can't be divided into train, validation and test by their position; take `split`, too"
            )
        self._rng = torch.get_rng_state(), np.random.get_state(), random.getstate()

    def make(self, split: str, rank: int = 0, world_size: int = 1) -> Any:
        """Return a new object, whose constructor draws the same numbers each time.

        Args:
            split: `train`, `validation` or `test`, where its constructor takes it.
            rank: The rank that reads it, where its constructor takes it.
            world_size: Number of ranks; 1: the whole stream.
        """
        before = torch.get_rng_state(), np.random.get_state(), random.getstate()
        _set(self._rng)
        try:
            found = call(
                self._target, "data", DATA_CALL, self._data.args, offered=self._offered(split, rank, world_size)
            )
        finally:
            _set(before)
        if isinstance(found, types.GeneratorType):
            raise ConfigurationError(
                f"data.class {self.label}: is a generator, which can be read once; return an object whose __iter__ "
                "begins again"
            )
        return found

    def open(self, split: str, epoch: int = 0, rank: int = 0, world_size: int = 1) -> Any:
        """Return a new object for an epoch."""
        found = self.make(split, rank, world_size)
        if self.by_split and hasattr(found, "set_epoch"):
            found.set_epoch(epoch)
        return found

    def _offered(self, split: str, rank: int, world_size: int) -> dict[str, Any]:
        offered: dict[str, Any] = {"base_dir": self._base_dir}
        if inspect.isclass(self._target):
            offered |= {"split": split, "rank": rank, "world_size": world_size}
        return offered


def length_of(dataset: Any) -> int | None:
    """Return the number of items that a dataset declares; None: it doesn't."""
    try:
        return len(dataset)
    except TypeError:  # no __len__, or one that says that there is none
        return None


def has_state(dataset: Any, label: str) -> bool:
    """Return whether a dataset can say where it is and be put there.

    Raises:
        ConfigurationError: It has one half of it.
    """
    halves = [callable(getattr(dataset, name, None)) for name in ("state_dict", "load_state_dict")]
    if any(halves) and not all(halves):
        there, missing = ("state_dict", "load_state_dict") if halves[0] else ("load_state_dict", "state_dict")
        raise ConfigurationError(f"data.class {label}: has `{there}` and no `{missing}`; a resume needs both")
    return all(halves)


def _set(state: Any) -> None:
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])
