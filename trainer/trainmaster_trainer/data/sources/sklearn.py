"""The data sets that come with scikit-learn: real, small, and there without a network."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from trainmaster_api.spec.task import Task

from trainmaster_trainer.data.rows import TensorRows

from .base import Request


def build(request: Request) -> TensorRows:
    """Return digits (8x8 images), iris, wine, breast_cancer (classes) or diabetes (a number)."""
    name, task = request.address, request.task
    if name == "digits":
        return _digits(task)
    from sklearn import datasets  # more than a second to import

    found: Any = getattr(datasets, f"load_{name}")()
    x = torch.from_numpy(found.data.astype(np.float32))
    features = [str(feature) for feature in found.feature_names]
    if task.name == "classification":
        y = torch.from_numpy(found.target.astype(np.int64))
        return TensorRows(x, y, [str(n) for n in found.target_names], features)
    return TensorRows(x, torch.from_numpy(found.target.astype(np.float32)), [], features)


def _digits(task: Task) -> TensorRows:
    """Read the file inside the package: importing scikit-learn would load scipy and pandas in every worker."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    with gzip.open(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    x = torch.from_numpy(table[:, :-1].reshape(-1, 1, 8, 8))  # (rows, 1, 8, 8), values 0..16
    y = torch.from_numpy(table[:, -1])
    if task.name == "classification":
        return TensorRows(x, y.long(), [str(digit) for digit in range(10)], [])
    return TensorRows(x, y, [], [])
