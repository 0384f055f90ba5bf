"""What the callbacks of a Trainer hold: patience, counters, averages of the weights.

Transformers restores callbacks only where the program asks for it, only those that export a state, and as new objects
at another place in the order. Here the attributes of the program's own objects are set.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

_PLAIN = (type(None), bool, int, float, str)


class Callbacks:
    """The callbacks of one call of `train`, as they are when it is created: what they have changed since is state."""

    def __init__(self, trainer: Any, ours: Any) -> None:
        self._trainer, self._ours = trainer, ours
        self._first = [
            {name: copy.deepcopy(value) for name, value in _values(each).items() if not _has_tensor(value)}
            for each in self._all()
        ]

    def state(self) -> list[dict[str, Any]]:
        """Return what is to be saved, in the order of the callbacks."""
        found = []
        for index, each in enumerate(self._all()):
            first = self._first[index] if index < len(self._first) else {}
            values = {name: value for name, value in _values(each).items() if not _is_same(value, first.get(name))}
            found.append({"class": type(each).__name__, "values": values})
        return found

    def put_back(self, saved: list[dict[str, Any]]) -> None:
        """Set what was saved; a callback that the program no longer has is skipped."""
        left = list(saved)
        for each in self._all():
            state = next((one for one in left if one["class"] == type(each).__name__), None)
            if state is not None:
                left = [one for one in left if one is not state]
                for name, value in state["values"].items():
                    setattr(each, name, _into(getattr(each, name, None), value))

    def _all(self) -> list[Any]:
        return [each for each in self._trainer.callback_handler.callbacks if each is not self._ours]


def _values(callback: Any) -> dict[str, Any]:
    """Return the values that a callback holds itself; of those that come with Transformers, what they export."""
    export = getattr(callback, "state", None)
    found = dict(export().get("attributes", {})) if callable(export) else {}
    if not type(callback).__module__.startswith("transformers."):
        found = {**vars(callback), **found}
    plain = {name: _plain(value) for name, value in found.items()}
    return {name: value for name, value in plain.items() if value is not _plain}


def _has_tensor(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, torch.Tensor) or (isinstance(value, list | tuple) and any(map(_has_tensor, value)))


def _plain(value: Any) -> Any:
    """Return a value as a checkpoint can hold it; this function itself: it can't."""
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) in (*_PLAIN, torch.Tensor):
        return value
    if type(value) in (list, tuple):
        found = [_plain(each) for each in value]
        return _plain if any(each is _plain for each in found) else type(value)(found)
    if type(value) is dict:
        found = [_plain(each) for each in value.values()]
        if any(each is _plain for each in found) or not all(type(key) in _PLAIN for key in value):
            return _plain
        return dict(zip(value, found, strict=True))
    return _plain


def _is_same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(_is_same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_same(value, other[key]) for key, value in one.items())
    return bool(one == other)


def _into(old: Any, new: Any) -> Any:
    """Return the saved value; where a tensor has it already it stays, for it may be one of the model's."""
    if isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor):
        new = new.to(old.device)
        return old if old.shape == new.shape and old.dtype == new.dtype and torch.equal(old, new) else new
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: _into(old.get(key), value) for key, value in new.items()}
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [_into(a, b) for a, b in zip(old, new, strict=True)]
    return new
