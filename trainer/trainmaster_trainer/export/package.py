"""The model that the user takes away: weights, what was asked, and what new rows need, in three readable files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from trainmaster_api.layout import MODEL
from trainmaster_api.spec.training import Training

from trainmaster_trainer.data import Prepared
from trainmaster_trainer.data.finding import Finding
from trainmaster_trainer.data.tables.drift import Statistics, compare
from trainmaster_trainer.data.tables.encode import Encoder
from trainmaster_trainer.data.tables.table import Column, Table
from trainmaster_trainer.data.text.drift import TextStatistics
from trainmaster_trainer.data.text.drift import compare as compare_texts
from trainmaster_trainer.data.text.encode import TextEncoder, joined
from trainmaster_trainer.data.text.rows import TOKENIZER
from trainmaster_trainer.data.text.tokens import Tokens
from trainmaster_trainer.errors import ConfigurationError, DataError
from trainmaster_trainer.models import build_model
from trainmaster_trainer.references import use_folder
from trainmaster_trainer.sample import Inputs, Sample, forward
from trainmaster_trainer.storage.store import Store

TEXTS_AT_ONCE = 512
WEIGHTS, SPEC, DATA = "model.safetensors", "training.json", "data.json"
IMAGES_AT_ONCE = 64


def package(store: Store, training: Training, data: Prepared, weights: dict[str, Tensor], outputs: int) -> str:
    """Write model/ and return its address. `outputs`: numbers that the model returns for a sample."""
    # a copy each: weights that a model uses twice share memory, which the format rejects
    store.put(
        f"{MODEL}/{WEIGHTS}", save({name: tensor.detach().clone().contiguous() for name, tensor in weights.items()})
    )
    store.put(f"{MODEL}/{SPEC}", json.dumps(training.wire(), indent=1).encode())
    for name, content in data.files().items():
        store.put(f"{MODEL}/{name}", content)
    store.put(f"{MODEL}/{DATA}", json.dumps({**data.description(), "outputs": outputs}, indent=1).encode())
    return f"{store.uri}/{MODEL}"


def _require_ours(data: dict[str, Any], uri: str) -> None:
    """Reject the package of a recipe: only its own code knows how its model is made and called."""
    if "recipe" in data:
        raise ConfigurationError(
            f"{uri}: the model of a recipe is made by its own code: call {data['recipe']}, and "
            f"`.model.load_state_dict(safetensors.torch.load_file(...))` with {MODEL}/{WEIGHTS}"
        )


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
    encoder: Encoder | TextEncoder | None = None
    statistics: tuple[Statistics, ...] | TextStatistics = ()
    outputs: int = 1

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
        if isinstance(self.encoder, TextEncoder):
            return self._of_texts(self.encoder, table, check)
        encoder = self._require_encoder()
        samples = torch.from_numpy(encoder.transform(table))
        if words := self._warning(table, check, lambda: compare(encoder, self._of_columns(), table)):
            warnings.warn(words, DriftWarning, stacklevel=3)  # the caller of the decorated method
        return self._decoded(self.model((samples - self.mean) / self.std))

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
    def predict_text(self, texts: Sequence[str], check: Check = "warn") -> Tensor:
        """Predict from texts: class numbers of (n,), or float64 numbers in the target's unit.

        Args:
            texts: One for each prediction.
            check: As for `predict_table`.

        Raises:
            ConfigurationError: The model wasn't trained on text.
            DataError: A text is empty, and the job didn't set `missing: impute`; the model reads several columns; or,
                with `strict`, the texts differ from the train split.
        """
        if not isinstance(self.encoder, TextEncoder):
            raise ConfigurationError("the model wasn't trained on text; use predict_table, or predict")
        return self._of_texts(self.encoder, self.encoder.table_of(texts), check)

    def _of_texts(self, encoder: TextEncoder, table: Table, check: Check) -> Tensor:
        columns = encoder.columns(table)
        tokens = encoder.tokenizer.encode(joined(columns)).tokens
        if words := self._warning(table, check, lambda: self._of_new_texts(columns, tokens)):
            warnings.warn(words, DriftWarning, stacklevel=4)  # the caller of the decorated method that called this one
        return self._decoded(self._of_tokens(tokens))

    def _of_tokens(self, tokens: Tokens) -> Tensor:
        """Return the model's output for each text, computed in batches of similar length."""
        order = np.argsort(tokens.lengths, kind="stable")
        most = self.training.data.text.max_length
        parts = [
            self.model(tokens.padded(order[start : start + TEXTS_AT_ONCE], most))
            for start in range(0, len(order), TEXTS_AT_ONCE)
        ]
        if not parts:
            return torch.zeros(0, self.outputs)
        return torch.cat(parts)[torch.from_numpy(np.argsort(order))]

    def _decoded(self, output: Tensor) -> Tensor:
        if self.labels:
            return output.argmax(dim=1)
        return output.squeeze(1).double() * self.target_std + self.target_mean

    def _warning(self, table: Table, check: Check, findings: Callable[[], list[Finding]]) -> str:
        """Return in what new rows differ from the train split; empty: in nothing, or it isn't looked at.

        Args:
            table: The rows.
            check: What is asked for.
            findings: Finds in what they differ.

        Raises:
            ConfigurationError: With `strict`, the package has no statistics.
            DataError: With `strict`, they differ.
        """
        if check not in get_args(Check):
            raise ConfigurationError(f"check is {check!r}; it can be {', '.join(get_args(Check))}")
        if check == "off":
            return ""
        if check == "strict":
            self._require_statistics()
        if not self.statistics:
            words = _NO_STATISTICS
        elif found := findings():
            ways = "1 way" if len(found) == 1 else f"{len(found):,} ways"
            sentences = "; ".join(finding.sentence for finding in found)
            words = f"{table.shown} differs from the training data in {ways}: {sentences}"
        else:
            return ""
        if check == "strict":
            raise DataError(f"{words}. Nothing was predicted; correct the rows, or train on such rows")
        return words

    def findings(self, table: Table) -> list[Finding]:
        """Return in what raw rows differ from the train split: types, missing values, range, categories, distribution.

        Of texts: missing ones, their lengths, and their tokens.

        Raises:
            ConfigurationError: The model wasn't trained on a table, or its package has no statistics.
            DataError: A column is missing or of another kind, or a value can't be used.
        """
        if isinstance(self.encoder, TextEncoder):
            self._require_statistics()
            columns = self.encoder.columns(table)
            return self._of_new_texts(columns, self.encoder.tokenizer.encode(joined(columns)).tokens)
        encoder = self._require_encoder()
        self._require_statistics()
        encoder.check(table)
        return compare(encoder, self._of_columns(), table)

    def _of_new_texts(self, columns: Sequence[Column], tokens: Tokens) -> list[Finding]:
        assert isinstance(self.encoder, TextEncoder)
        assert isinstance(self.statistics, TextStatistics)
        return list(compare_texts(self.statistics, columns, self.encoder.tokenizer, tokens))

    def _of_columns(self) -> tuple[Statistics, ...]:
        assert not isinstance(self.statistics, TextStatistics)
        return self.statistics

    def _require_statistics(self) -> None:
        if not self.statistics:
            raise ConfigurationError(_NO_STATISTICS)

    def _require_encoder(self) -> Encoder:
        if not isinstance(self.encoder, Encoder):
            raise ConfigurationError("the model was trained on tensors or texts and not on a table; use predict")
        return self.encoder

    @torch.no_grad()
    def predict(self, x: Sample) -> Tensor:
        """Predict from unscaled samples of (n, *shape), a table's and a text's as they are encoded.

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
    _require_ours(data, store.uri)
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
        _encoder(data, store),
        _statistics(data),
        data["outputs"],
    )


def _encoder(data: dict[str, Any], store: Store) -> Encoder | TextEncoder | None:
    """Return what turns raw rows into samples; None: the model was trained on tensors."""
    if "text" in data:
        return TextEncoder.read(data["text"], store.get(f"{MODEL}/{TOKENIZER}"))
    return Encoder.read(data["encoder"]) if "encoder" in data else None


def _statistics(data: dict[str, Any]) -> tuple[Statistics, ...] | TextStatistics:
    """Return the statistics of the train split; none: an earlier version wrote the package."""
    if "textStatistics" in data:
        return TextStatistics.read(data["textStatistics"])
    return tuple(Statistics.read(each) for each in data.get("statistics", ()))
