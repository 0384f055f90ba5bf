"""The model that the user takes away: weights, what was asked, and what new rows need, in three readable files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from trainmaster_api.layout import MODEL
from trainmaster_api.spec.training import Training

from trainmaster_trainer.data import Prepared
from trainmaster_trainer.data.sample import Inputs
from trainmaster_trainer.data.tables.encode import Encoder
from trainmaster_trainer.data.tables.table import Table
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.models import build_model
from trainmaster_trainer.references import use_folder
from trainmaster_trainer.storage.store import Store

WEIGHTS, SPEC, DATA = "model.safetensors", "training.json", "data.json"
IMAGES_AT_ONCE = 64


def package(store: Store, training: Training, data: Prepared, weights: dict[str, Tensor], outputs: int) -> str:
    """Write model/ and return its address. `outputs`: numbers that the model returns for a sample."""
    # a copy each: weights that a model uses twice share memory, which the format rejects
    store.put(
        f"{MODEL}/{WEIGHTS}", save({name: tensor.detach().clone().contiguous() for name, tensor in weights.items()})
    )
    store.put(f"{MODEL}/{SPEC}", json.dumps(training.wire(), indent=1).encode())
    store.put(f"{MODEL}/{DATA}", json.dumps({**data.description(), "outputs": outputs}, indent=1).encode())
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
    encoder: Encoder | None = None

    @torch.no_grad()
    def predict_table(self, table: Table) -> Tensor:
        """Predict from raw rows of a table: class numbers of (n,), or float64 numbers in the target's unit.

        Columns that the model doesn't know are not used.

        Raises:
            ConfigurationError: The model wasn't trained on a table.
            DataError: A column is missing or of another kind, or a value can't be used.
        """
        if self.encoder is None:
            raise ConfigurationError("the model was trained on tensors and not on a table; use predict")
        output = self.model((torch.from_numpy(self.encoder.transform(table)) - self.mean) / self.std)
        if self.labels:
            return output.argmax(dim=1)  # type: ignore[no-any-return]
        return output.squeeze(1).double() * self.target_std + self.target_mean  # type: ignore[no-any-return]

    @torch.no_grad()
    def predict_images(self, images: Sequence[bytes | Path]) -> Tensor:
        """Predict from image files, decoded, resized and scaled as those of the run were.

        Returns:
            Class numbers of (n,), or numbers in the target's unit.

        Raises:
            ConfigurationError: The model wasn't trained on images.
            DataError: A file isn't there, or isn't an image.
        """
        data = self.training.data
        if not data.is_images:
            raise ConfigurationError("the model wasn't trained on image files; use predict or predict_table")
        from trainmaster_trainer.data.images.files import decoded  # with torchvision

        parts = [
            self.predict(decoded(images[start : start + IMAGES_AT_ONCE], data))
            for start in range(0, len(images), IMAGES_AT_ONCE)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Predict from unscaled samples of (n, *shape), a table's as they are encoded.

        Returns:
            Class numbers of (n,), or numbers in the target's unit.
        """
        output = self.model((x - self.mean) / self.std)
        if self.labels or self.training.task.name == "classification":
            return output.argmax(dim=1)  # type: ignore[no-any-return]
        return output.squeeze(1) * self.target_std + self.target_mean  # type: ignore[no-any-return]


def load_package(store: Store, code: Path | None = None) -> Predictor:
    """Read model/ of a run's store.

    Args:
        store: The run's store.
        code: Folder with the user's own code, where the model is a reference to it; default: it is installed.

    Raises:
        FileNotFoundError: The run has no packaged model.
        ConfigurationError: The model's code isn't there; with what is needed.
    """
    files: dict[str, bytes] = {}
    for name in (WEIGHTS, SPEC, DATA):
        content = store.get(f"{MODEL}/{name}")
        if content is None:
            raise FileNotFoundError(f"{store.uri}/{MODEL}/{name}: the run has no packaged model")
        files[name] = content
    training = Training.model_validate_json(files[SPEC])
    data: dict[str, Any] = json.loads(files[DATA])
    if code is not None:
        use_folder(code)
    try:
        model = build_model(training.model, Inputs.read(data), data["outputs"])
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{store.uri}/{MODEL} was trained with {training.model.label}, which can't be built here: "
            f"{error}. Pass the "
            "folder with its code (load_package(store, code=...)), or install the package"
        ) from error
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
        Encoder.read(data["encoder"]) if "encoder" in data else None,
    )
