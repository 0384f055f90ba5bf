"""Images of several sources behind one another: `source`, then those of single splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trainmaster_trainer.errors import DataError
from trainmaster_trainer.sample import Sample

from .division import Division
from .images.content import JoinedContent
from .images.copies import Comparison
from .images.rows import ImageRows
from .order import Indices
from .rows import Rows


class JoinedRows:
    """Images of several sources with one numbering and one list of classes.

    The train split is of the first source, and the numbers of its rows are the same in both.

    Args:
        parts: Rows of `source`, of `validationSource` and of `testSource`; None: it isn't given.

    Raises:
        DataError: Samples have different shapes.
    """

    def __init__(self, parts: Sequence[Rows | None]) -> None:
        self._parts = [part for part in parts if part is not None]
        self.validation_rows, self.test_rows = (0 if part is None else len(part) for part in parts[1:])
        first = self._parts[0]
        if len({tuple(part.shape) for part in self._parts}) > 1:
            shapes = ", ".join(str(list(part.shape)) for part in self._parts)
            raise DataError(f"the sources have samples of different shapes: {shapes}; they must have the same")
        self.shape, self.features = first.shape, first.features
        self.labels = sorted({label for part in self._parts for label in part.labels})
        number = {label: index for index, label in enumerate(self.labels)}
        self._classes = [torch.tensor([number[label] for label in part.labels]) for part in self._parts]
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])
        self.is_decoded: bool = getattr(first, "is_decoded", False)
        self.is_remote = any(getattr(part, "is_remote", False) for part in self._parts)
        self.can_be_scaled: bool = getattr(first, "can_be_scaled", True)
        self.statistics = getattr(first, "statistics", None)
        compared = [part.comparison for part in self._parts if isinstance(part, ImageRows)]
        self._comparison = Comparison(JoinedContent([each.content for each in compared]), compared[0].most)
        self._warnings = tuple(each for part in self._parts for each in getattr(part, "warnings", ()))
        self.notes = tuple(dict.fromkeys(note for part in self._parts for note in part.notes))

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def row_classes(self) -> Indices | None:
        """Return the class of each row; None: not known before the rows are read."""
        found: list[Indices | None] = [getattr(part, "row_classes", None) for part in self._parts]
        if any(each is None for each in found):
            return None
        return np.concatenate(
            [classes.numpy()[each] for classes, each in zip(self._classes, found, strict=True) if each is not None]
        )

    def check(self, division: Division) -> tuple[str, ...]:
        """Return warnings about copies in two splits or classes, in any source, and about classes a split lacks."""
        classes = self.row_classes
        found = () if classes is None else self._comparison.check(classes, self.labels, division)
        return (*self._warnings, *found)

    def copy_ids(self) -> Indices:
        """Return for each image the number of the first one with the same bytes, in any source."""
        return self._comparison.ids

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Return rows by number."""
        of_part = np.searchsorted(self._starts, indices, side="right") - 1
        chosen = np.unique(of_part).tolist()
        if len(chosen) == 1:
            return self._of(chosen[0], indices)
        found = [self._of(part, indices[of_part == part]) for part in chosen]
        place = torch.from_numpy(np.argsort(np.argsort(of_part, kind="stable"), kind="stable"))
        x, y = (torch.cat(each)[place] for each in zip(*found, strict=True))
        return x, y

    def training_batch(self, indices: Indices, rounds: Indices, seed: int) -> tuple[Sample, Tensor]:
        """Return rows of the train split with random draws, if their source has them."""
        drawn = getattr(self._parts[0], "training_batch", None)
        if drawn is None:
            return self.batch(indices)
        x, y = drawn(indices, rounds, seed)
        return x, self._classes[0][y] if self.labels else y

    def _of(self, part: int, indices: Indices) -> tuple[Tensor, Tensor]:
        x, y = self._parts[part].batch(indices - self._starts[part])
        assert isinstance(x, Tensor)
        return x, self._classes[part][y] if self.labels else y
