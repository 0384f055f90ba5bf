"""The datasets of a recipe as the loop reads them: by number, drawn and batched as every other data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from trainmaster_trainer.data.draws import seeded
from trainmaster_trainer.data.order import Indices
from trainmaster_trainer.data.own.rows import EVALUATION
from trainmaster_trainer.data.prepared import Prepared
from trainmaster_trainer.errors import ConfigurationError, DataError

from . import Recipe

SPLITS = ("train", "validation", "test")
NO_STATISTICS = (
    "the packaged model has the weights and the recipe's reference; it has no labels and no statistics of the data, so "
    "it is loaded by your code: Recipe.model.load_state_dict of model/model.safetensors"
)


class RecipeRows:
    """Samples of all splits, numbered one after the other.

    What a sample draws from numpy's, torch's and Python's global RNG is a pure function of (seed, round, sample).

    Args:
        recipe: The recipe.
        label: Its reference, for sentences.

    Raises:
        ConfigurationError: A dataset isn't one.
        DataError: One is empty.
    """

    shape: tuple[int, ...] = ()
    notes: tuple[str, ...] = (NO_STATISTICS,)

    def __init__(self, recipe: Recipe, label: str) -> None:
        self.labels: list[str] = []
        self.features: list[str] = []
        self.label, self.dataset, self._collate = label, recipe.train, recipe.collate
        self._datasets = [getattr(recipe, name) for name in SPLITS]
        sizes = [_size(dataset, name, label) for name, dataset in zip(SPLITS, self._datasets, strict=True)]
        self._ends = np.cumsum(sizes)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def splits(self) -> tuple[Indices, Indices, Indices]:
        """Return the numbers of the samples of train, validation and test."""
        first, second, last = (int(end) for end in self._ends)
        return np.arange(first), np.arange(first, second), np.arange(second, last)

    def batch(self, indices: Indices) -> tuple[Any, Any]:
        """Return samples that aren't trained on: what is drawn for one is the same each time."""
        return self._read(indices, np.zeros_like(indices), EVALUATION)

    def training_batch(self, indices: Indices, rounds: Indices, seed: int) -> tuple[Any, Any]:
        """Return samples to train on, see `DatasetRows.training_batch`."""
        return self._read(indices, rounds, seed)

    def _read(self, indices: Indices, rounds: Indices, seed: int) -> tuple[Any, Any]:
        """Return the batch in the place of samples; what would be targets is in it."""
        found = []
        with seeded(seed) as seed_row:
            for index, round_number in zip(indices.tolist(), rounds.tolist(), strict=True):
                seed_row(index, round_number)
                split = int(np.searchsorted(self._ends, index, side="right"))
                start = int(self._ends[split - 1]) if split else 0
                found.append(self._datasets[split][index - start])
            if self._collate is not None:
                return self._collate(found), None
            try:
                return default_collate(found), None
            except (RuntimeError, TypeError) as error:
                raise DataError(
                    f"recipe {self.label}: samples {int(indices[0])} .. {int(indices[-1])} can't be put into one "
                    f"batch: {error}; return samples of the same shape, or give Recipe a `collate`"
                ) from None


def _size(dataset: Any, name: str, label: str) -> int:
    if dataset is None and name != "train":
        return 0
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise ConfigurationError(
            f"recipe {label}: Recipe.{name} is a {type(dataset).__name__}; expected a dataset with __len__ and "
            "__getitem__ (a stream needs data.class, or a script)"
        )
    if len(dataset) == 0:
        raise DataError(f"recipe {label}: Recipe.{name} has no samples" + ("" if name == "train" else "; leave it out"))
    return len(dataset)


class RecipeData(Prepared):
    """The samples of a recipe with their split; nothing is scaled."""

    @classmethod
    def of(cls, recipe: Recipe, label: str, batch_size: int) -> RecipeData:
        """Return the data of a recipe.

        Raises:
            ConfigurationError: It can't feed one batch.
            DataError: A dataset is empty.
        """
        rows = RecipeRows(recipe, label)
        train, validation, test = rows.splits
        if len(train) < batch_size:
            raise ConfigurationError(
                f"recipe.batchSize {batch_size} is more than the {len(train)} samples of Recipe.train ({label}); "
                f"at most {len(train)} is possible"
            )
        return cls(
            rows, train, validation, test, torch.zeros(1), torch.ones(1), notes=rows.notes,
            draw_weights=_weights(recipe, label, len(train)),
        )  # fmt: skip

    def scaled(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return a batch on the device."""
        return moved(x, self.mean.device), y

    def description(self) -> dict[str, Any]:
        """Return what the package says of the model."""
        return {"recipe": self.rows.label, "note": NO_STATISTICS}  # type: ignore[attr-defined]


def moved(value: Any, device: torch.device) -> Any:
    """Return a batch on the device: tensors, and what has `to`, in dicts, lists and tuples of any depth."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: moved(each, device) for name, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(each, device) for each in value))
    if type(value) in (list, tuple):
        return type(value)(moved(each, device) for each in value)
    return value.to(device) if callable(getattr(value, "to", None)) else value


def _weights(recipe: Recipe, label: str, rows: int) -> np.ndarray[Any, Any] | None:
    given = recipe.sampling_weights
    if given is None:
        return None
    where = f"recipe {label}: Recipe.sampling_weights"
    try:
        found = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{where}: {error}; expected a number for each sample of train") from None
    if found.shape != (rows,):
        raise ConfigurationError(f"{where} has shape {list(found.shape)}; expected [{rows}], a number for each sample")
    wrong = np.flatnonzero(~((found >= 0) & np.isfinite(found)))
    if len(wrong):
        some = ", ".join(f"{found[at]} of sample {at}" for at in wrong[:10].tolist())
        raise ConfigurationError(f"{where} has {some}; expected finite numbers, 0 or more")
    if not found.any():
        raise ConfigurationError(f"{where} are all 0: nothing would be drawn")
    return found
