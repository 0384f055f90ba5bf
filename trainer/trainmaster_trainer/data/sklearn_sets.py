"""The data sets that come with scikit-learn: real, small, and there without a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from trainmaster_api.training import Classification, Regression

from .prepared import TensorRows


def load_sklearn(name: str, task: Classification | Regression) -> TensorRows:
    """Digits (8x8 images), iris, wine, breast_cancer (classes), diabetes (a number)."""
    from sklearn import datasets  # half a second to import, and only this source needs it

    found: Any = getattr(datasets, f"load_{name}")()
    if name == "digits":
        x = torch.from_numpy(found.images.astype(np.float32)).unsqueeze(1)  # (rows, 1, 8, 8), values 0..16
        features: list[str] = []
    else:
        x = torch.from_numpy(found.data.astype(np.float32))
        features = [str(feature) for feature in found.feature_names]
    if isinstance(task, Classification):
        return TensorRows(
            x, torch.from_numpy(found.target.astype(np.int64)), [str(n) for n in found.target_names], features
        )
    return TensorRows(x, torch.from_numpy(found.target.astype(np.float32)), [], features)
