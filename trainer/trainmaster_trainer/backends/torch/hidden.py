"""Finds what an object keeps that its state_dict doesn't have, by comparing it with a second instance."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainmaster_trainer.data.own.stream import same

DEPTH = 3  # of containers and plain objects below a module or function
MOST_ITEMS = 1000  # of a container that are looked at
_PLAIN = (bool, int, float, complex, str, bytes)
_OF_MODULES = frozenset(vars(nn.Module()))
_OF_OPTIMIZERS = frozenset(("state", "param_groups", "defaults", "found_inf"))  # the last is set by us


@dataclass(frozen=True)
class Hidden:
    """A value that no checkpoint has.

    Attributes:
        place: What keeps it: `model.encoder`, `loss`.
        name: Its attribute or variable.
        owner: Class of what keeps it.
        kind: `attribute` or `variable`.
        what: Its type.
    """

    place: str
    name: str
    owner: str
    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of {self.place} ({self.owner}; {self.what})"


def hidden_between(first: dict[str, Any], second: dict[str, Any]) -> list[Hidden]:
    """Return the values that differ between two instances of the same objects, without what their state_dict has."""
    return [
        Hidden(place, name, type(one).__name__, "attribute" if kind == "" else "variable", type(value).__name__)
        for word in first
        for place, one, other in _pairs(word, first[word], second[word])
        for kind, name, value, there in _values(one, other)
        if not _alike(value, there, DEPTH)
    ]


def _pairs(word: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, nn.Module) and isinstance(other, nn.Module):
        theirs = dict(other.named_modules())
        for name, module in one.named_modules():
            if name in theirs:
                yield f"{word}.{name}" if name else word, module, theirs[name]
    else:
        yield word, one, other


def _values(one: Any, other: Any) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield kind, name and both values of what an object keeps."""
    if isinstance(one, types.MethodType) and isinstance(other, types.MethodType):
        one, other = one.__self__, other.__self__
    if isinstance(one, types.FunctionType) and isinstance(other, types.FunctionType):
        for name, cell, there in zip(
            one.__code__.co_freevars, one.__closure__ or (), other.__closure__ or (), strict=False
        ):
            try:
                yield "variable", name, cell.cell_contents, there.cell_contents
            except ValueError:  # not assigned yet
                continue
        return
    mine, theirs = _attributes(one), _attributes(other)
    for name in sorted({*mine, *theirs}):
        yield "", name, mine.get(name), theirs.get(name)


def _attributes(each: Any) -> dict[str, Any]:
    left_out = _OF_MODULES if isinstance(each, nn.Module) else frozenset[str]()
    if isinstance(each, torch.optim.Optimizer):
        left_out = _OF_OPTIMIZERS | frozenset(vars(torch.optim.SGD([torch.zeros(1)])))  # hooks and the like
    found = {name: value for name, value in getattr(each, "__dict__", {}).items() if name not in left_out}
    if isinstance(each, nn.Module):  # a buffer that isn't saved, too
        saved = each.state_dict()
        found |= {name: buffer for name, buffer in each.named_buffers(recurse=False) if name not in saved}
    return found


def _alike(one: Any, other: Any, depth: int) -> bool:
    """Return whether two values are equal; of what can't be looked into, that they are."""
    if isinstance(one, nn.Module | torch.optim.Optimizer) or callable(one):
        return True  # compared elsewhere, or code
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return same(one.detach(), other.detach())
    if isinstance(one, np.ndarray):
        return one.dtype.hasobject or same(one, other)
    if isinstance(one, _PLAIN):
        return same(one, other)
    if depth == 0:
        return True
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            key in other and _alike(value, other[key], depth - 1) for key, value in list(one.items())[:MOST_ITEMS]
        )
    if isinstance(one, list | tuple) or type(one).__name__ == "deque":
        return len(one) == len(other) and all(
            _alike(*pair, depth - 1) for pair in zip(list(one)[:MOST_ITEMS], list(other)[:MOST_ITEMS], strict=True)
        )
    if isinstance(one, set | frozenset):
        return len(one) == len(other)
    if hasattr(one, "state_dict") or type(one).__module__.partition(".")[0] in ("torch", "numpy"):
        return True
    inside, outside = getattr(one, "__dict__", {}), getattr(other, "__dict__", {})
    return inside.keys() == outside.keys() and all(_alike(inside[key], outside[key], depth - 1) for key in inside)
