"""Random generators that a data set has for itself: their states are in no checkpoint."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import numpy as np
import torch

_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_DATA = (torch.Tensor, np.ndarray, str, bytes, int, float, type)
_DEEPEST, _LONGEST, _MOST = 4, 32, 1000


def of_its_own(dataset: Any) -> str:
    """Return the path of a generator among a data set's attributes; empty: none was found.

    Wrapped data sets (`Subset`, `ConcatDataset`) and transforms are looked into, long lists aren't: those are data.
    """
    waiting, seen = deque([("dataset", dataset, 0)]), {id(dataset)}
    while waiting and len(seen) < _MOST:
        path, found, depth = waiting.popleft()
        if isinstance(found, _GENERATORS):
            return path
        if depth == _DEEPEST or isinstance(found, _DATA):
            continue
        for name, part in _parts(found):
            if id(part) not in seen:
                seen.add(id(part))
                waiting.append((path + name, part, depth + 1))
    return ""


def _parts(found: Any) -> list[tuple[str, Any]]:
    if isinstance(found, list | tuple | dict):
        if len(found) > _LONGEST:
            return []
        items = found.items() if isinstance(found, dict) else enumerate(found)
        return [(f"[{key!r}]", part) for key, part in items]
    return [(f".{name}", part) for name, part in getattr(found, "__dict__", {}).items()]
