"""How well one feature alone predicts the target: learned on rows of train, measured on rows of validation.

The rule that is learned is the plainest that knows no form: the mean target (the most frequent class) of the five train
rows whose values are nearest, or of all train rows with the same value where a feature has few values or is text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

NEAREST = 5
FEW_VALUES = 64  # a number with at most so many different values in train is looked up by value


@dataclass(frozen=True)
class Score:
    """A score of at most 1.

    Attributes:
        measure: `AUC` (two classes), `balanced accuracy` (more) or `R2` (regression).
        value: 1 for a perfect prediction; a guess has 0.5, 1 / classes and 0.
    """

    measure: str
    value: float

    def __str__(self) -> str:
        return f"{self.measure} {self.value:.3f}"


def alone(
    x: npt.NDArray[Any], y: npt.NDArray[Any], held_x: npt.NDArray[Any], held_y: npt.NDArray[Any], *, classes: int
) -> Score | None:
    """Return the score of one feature; None where it can't be measured, as only one class is held out.

    Args:
        x: Values on train: floats where their order means something (NaN: missing), else codes from 0.
        y: Targets on train: class numbers or floats.
        held_x: Values on validation.
        held_y: Targets on validation.
        classes: Number of classes; 0: a regression.
    """
    order = None if x.dtype.kind != "f" else np.argsort(x, kind="stable")  # NaN, which is missing, last
    by_value = order is None or _distinct(x[order]) <= FEW_VALUES
    if by_value:
        _, both = np.unique(np.concatenate([x, held_x]), return_inverse=True)
        x, held_x = both[: len(x)], both[len(x) :]
    if classes > 2:
        votes = _vote_by_value(x, y, held_x) if order is None or by_value else _vote_nearest(x, order, y, held_x)
        return _balanced_accuracy(votes, held_y)
    found = _mean_by_value(x, y, held_x) if order is None or by_value else _mean_nearest(x, order, y, held_x)
    if classes == 2:
        return None if len(np.unique(held_y)) < 2 else Score("AUC", auc(found, held_y == 1))
    spread = float(np.sum((held_y - held_y.mean()) ** 2))
    return None if spread == 0 else Score("R2", 1 - float(np.sum((held_y - found) ** 2)) / spread)


def auc(scores: Floats, is_positive: npt.NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve; ties count half."""
    _, codes, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[codes]  # from 1, the mean of a tie
    positive = int(is_positive.sum())
    above = float(ranks[is_positive].sum()) - positive * (positive + 1) / 2
    return above / (positive * (len(scores) - positive))


def _balanced_accuracy(found: Codes, true: Codes) -> Score | None:
    names = np.unique(true)
    if len(names) < 2:
        return None
    return Score("balanced accuracy", float(np.mean([(found[true == each] == each).mean() for each in names])))


def _mean_by_value(x: Codes, y: npt.NDArray[Any], held: Codes) -> Floats:
    size = int(max(x.max(), held.max())) + 1
    counts, sums = np.bincount(x, minlength=size), np.bincount(x, weights=y, minlength=size)
    # a value that train doesn't have is a guess
    means = np.divide(sums, counts, out=np.full(size, float(y.mean())), where=counts > 0)
    return np.asarray(means[held])


def _vote_by_value(x: Codes, y: Codes, held: Codes) -> Codes:
    size, classes = int(max(x.max(), held.max())) + 1, int(y.max()) + 1
    winner = np.full(size, int(np.bincount(y).argmax()), np.int64)
    pairs, counts = np.unique(x * classes + y, return_counts=True)
    order = np.argsort(counts, kind="stable")  # the most frequent is written last
    winner[pairs[order] // classes] = pairs[order] % classes
    return winner[held]


def _distinct(ordered: Floats) -> int:
    """Return the number of distinct values of a sorted array, NaN one of them."""
    present = int(np.searchsorted(ordered, np.nan))
    return (
        int(np.count_nonzero(ordered[1:present] != ordered[: max(0, present - 1)]))
        + (present > 0)
        + (present < len(ordered))
    )


def _windows(ordered: Floats, held: Floats) -> tuple[npt.NDArray[np.int64], int]:
    """Return where the window of each held value starts among the sorted ones, and the width of the windows."""
    width = min(NEAREST, len(ordered))
    middle = (np.searchsorted(ordered, held, "left") + np.searchsorted(ordered, held, "right")) // 2
    return np.clip(middle - width // 2, 0, len(ordered) - width), width


def _mean_nearest(x: Floats, order: Codes, y: npt.NDArray[Any], held: Floats) -> Floats:
    starts, width = _windows(x[order], held)
    return np.asarray(y[order][starts[:, None] + np.arange(width)].mean(axis=1))


def _vote_nearest(x: Floats, order: Codes, y: Codes, held: Floats) -> Codes:
    starts, width = _windows(x[order], held)
    near = y[order][starts[:, None] + np.arange(width)]
    votes = (near[:, :, None] == near[:, None, :]).sum(axis=2)
    return np.asarray(near[np.arange(len(near)), votes.argmax(axis=1)])
