"""The model that the user takes away: weights, what was asked, and what new rows need, in three readable files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from trainmaster_api.layout import MODEL
from trainmaster_api.spec.training import Training

from trainmaster_trainer.data import Prepared
from trainmaster_trainer.models import build_model
from trainmaster_trainer.storage.store import Store
from trainmaster_trainer.tasks import build_task

WEIGHTS, SPEC, DATA = "model.safetensors", "training.json", "data.json"


def package(store: Store, training: Training, data: Prepared, weights: dict[str, Tensor]) -> str:
    """Write model/ and return its address."""
    store.put(f"{MODEL}/{WEIGHTS}", save({name: tensor.contiguous() for name, tensor in weights.items()}))
    store.put(f"{MODEL}/{SPEC}", json.dumps(training.wire(), indent=1).encode())
    store.put(f"{MODEL}/{DATA}", json.dumps(data.description(), indent=1).encode())
    return f"{store.uri}/{MODEL}"


@dataclass
class Predictor:
    """A packaged model, ready for new rows."""

    model: nn.Module
    training: Training
    labels: list[str]
    mean: Tensor
    std: Tensor
    target_mean: float
    target_std: float

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Unscaled samples of (n, *shape) -> class numbers of (n,), or numbers in the target's unit."""
        output = self.model((x - self.mean) / self.std)
        if self.labels or self.training.task.name == "classification":
            return output.argmax(dim=1)  # type: ignore[no-any-return]
        return output.squeeze(1) * self.target_std + self.target_mean  # type: ignore[no-any-return]


def load_package(store: Store) -> Predictor:
    """Read model/ of a run's store.

    Raises:
        FileNotFoundError: The run has no packaged model.
    """
    files: dict[str, bytes] = {}
    for name in (WEIGHTS, SPEC, DATA):
        content = store.get(f"{MODEL}/{name}")
        if content is None:
            raise FileNotFoundError(f"{store.uri}/{MODEL}/{name}: the run has no packaged model")
        files[name] = content
    training = Training.model_validate_json(files[SPEC])
    data: dict[str, Any] = json.loads(files[DATA])
    model = build_model(training.model, tuple(data["shape"]), build_task(training.task, len(data["labels"])).outputs)
    model.load_state_dict(load(files[WEIGHTS]))
    shape = data["statisticsShape"]
    return Predictor(
        model.eval(),
        training,
        data["labels"],
        torch.tensor(data["mean"]).reshape(shape),
        torch.tensor(data["std"]).reshape(shape),
        data["targetMean"],
        data["targetStd"],
    )
