"""The model that the user takes away: weights, what was asked, and what new rows need, in three readable files."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from trainmaster_api.layout import MODEL
from trainmaster_api.spec.training import Training

from trainmaster_trainer.data import Prepared
from trainmaster_trainer.data.checks import Finding
from trainmaster_trainer.data.sample import Inputs, Sample, forward
from trainmaster_trainer.data.tables.drift import Statistics, compare
from trainmaster_trainer.data.tables.encode import Encoder
from trainmaster_trainer.data.tables.table import Table
from trainmaster_trainer.errors import ConfigurationError, DataError
from trainmaster_trainer.models import build_model
from trainmaster_trainer.references import use_folder
from trainmaster_trainer.storage.store import Store

WEIGHTS, SPEC, DATA = "model.safetensors", "training.json", "data.json"


def package(store: Store, training: Training, data: Prepared, weights: dict[str, Tensor], outputs: int) -> str:
    """Write model/ and return its address. `outputs`: numbers that the model returns for a sample."""
    # a copy each: weights that a model uses twice share memory, which the format rejects
    store.put(
        f"{MODEL}/{WEIGHTS}", save({name: tensor.detach().clone().contiguous() for name, tensor in weights.items()})
    )
    store.put(f"{MODEL}/{SPEC}", json.dumps(training.wire(), indent=1).encode())
    store.put(f"{MODEL}/{DATA}", json.dumps({**data.description(), "outputs": outputs}, indent=1).encode())
    return f"{store.uri}/{MODEL}"


_NO_STATISTICS = (
    "the package has no statistics of the train split, because an earlier version wrote it, so new rows can't be "
    "compared with it; train again, or predict with check off"
)

Check = Literal["strict", "warn", "off"]
"""What is done where new rows differ from the train split."""


class DriftWarning(UserWarning):
    """New rows differ from those that a model was trained on, and are predicted all the same."""


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
    statistics: tuple[Statistics, ...] = ()

    @torch.no_grad()
    def predict_table(self, table: Table, check: Check = "warn") -> Tensor:
        """Predict from raw rows of a table: class numbers of (n,), or float64 numbers in the target's unit.

        Columns that the model doesn't know are not used. What makes a row impossible to encode is always an error.

        Args:
            table: The rows.
            check: What is done where they differ from the train split (`findings`): nothing is predicted, or a
                DriftWarning says it, or it isn't looked at.

        Raises:
            ConfigurationError: The model wasn't trained on a table.
            DataError: A column is missing or of another kind, or a value can't be used; with `strict` also where the
                rows differ from the train split.
        """
        if check not in get_args(Check):
            raise ConfigurationError(f"check is {check!r}; it can be {', '.join(get_args(Check))}")
        encoder = self._require_encoder()
        samples = torch.from_numpy(encoder.transform(table))
        if check != "off":
            self._check(encoder, table, is_strict=check == "strict")
        output = self.model((samples - self.mean) / self.std)
        if self.labels:
            return output.argmax(dim=1)  # type: ignore[no-any-return]
        return output.squeeze(1).double() * self.target_std + self.target_mean  # type: ignore[no-any-return]

    def _check(self, encoder: Encoder, table: Table, *, is_strict: bool) -> None:
        if is_strict:
            self._require_statistics()
        found = compare(encoder, self.statistics, table)
        words = "; ".join(finding.sentence for finding in found)
        if not self.statistics:
            words = _NO_STATISTICS
        elif found:
            ways = "1 way" if len(found) == 1 else f"{len(found):,} ways"
            words = f"{table.shown} differs from the training data in {ways}: {words}"
        else:
            return
        if is_strict:
            raise DataError(f"{words}. Nothing was predicted; correct the rows, or train on such rows")
        warnings.warn(words, DriftWarning, stacklevel=4)  # predict_table and its decorator are between

    def findings(self, table: Table) -> list[Finding]:
        """Return in what raw rows differ from the train split: types, missing values, range, categories, distribution.

        Raises:
            ConfigurationError: The model wasn't trained on a table, or its package has no statistics.
            DataError: A column is missing or of another kind, or a value can't be used.
        """
        encoder = self._require_encoder()
        self._require_statistics()
        encoder.check(table)
        return compare(encoder, self.statistics, table)

    def _require_statistics(self) -> None:
        if not self.statistics:
            raise ConfigurationError(_NO_STATISTICS)

    def _require_encoder(self) -> Encoder:
        if self.encoder is None:
            raise ConfigurationError("the model was trained on tensors and not on a table; use predict")
        return self.encoder

    @torch.no_grad()
    def predict(self, x: Sample) -> Tensor:
        """Predict from unscaled samples of (n, *shape), a table's as they are encoded.

        Args:
            x: What the rows' `batch` returns: a tensor, or several as a tuple or a dict.

        Returns:
            Class numbers of (n,), or numbers in the target's unit.
        """
        is_scaled = (
            isinstance(x, Tensor) and x.is_floating_point()
        )  # tokens, and several tensors, are taken as they are
        output = forward(self.model, (x - self.mean) / self.std if is_scaled else x)  # type: ignore[operator]
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
        tuple(Statistics.read(each) for each in data.get("statistics", ())),
    )
