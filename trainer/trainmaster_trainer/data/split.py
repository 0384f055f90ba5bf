"""Which side each row is on: pure functions of the seed, the number of rows and what the split goes by.

Each returns 0 (train), 1 (validation) or 2 (test) for every row; `division` picks one and says what was done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from trainmaster_api.spec.data import SPLIT_WORDS

from trainmaster_trainer.errors import DataError

from .sentences import MOST_NAMED, first_of

Sides = npt.NDArray[np.int8]
Shares = tuple[float, float, float]

SPLITS = ("train", "validation", "test")
MOST_LOOPED = 4096  # groups that are placed one by one, largest first; the rest fills up what is missing


# -- by class --------------------------------------------------------------------------------------------------------


def stratified(classes: npt.NDArray[np.int64], shares: Shares, seed: int) -> Sides:
    """Divide each class in the same proportions.

    A class's count in a split is its exact share rounded down or up; what rounding leaves over is carried from class to
    class, so the splits as a whole have their shares, too. Then each class that has as many rows as there are splits
    gets at least one row in each.

    Args:
        classes: Class of each row.
        shares: Of train, validation and test; a split with share 0 stays empty.
        seed: Decides which rows of a class go where.
    """
    rows = len(classes)
    _, codes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    quotas = _quotas(sizes, shares)
    order = np.random.default_rng([seed, rows]).permutation(rows)
    by_class = order[np.argsort(codes[order], kind="stable")]
    sides = np.empty(rows, np.int8)
    sides[by_class] = np.repeat(np.tile(np.arange(3, dtype=np.int8), len(sizes)), quotas.ravel())
    return sides


def _quotas(sizes: npt.NDArray[np.int64], shares: Shares) -> npt.NDArray[np.int64]:
    """Return rows of each class (first axis) in each split."""
    exact = sizes[:, None] * np.asarray(shares)
    quotas: npt.NDArray[np.int64] = np.floor(exact + 1e-9).astype(np.int64)
    wanted = np.zeros(3)
    used = [side for side in range(3) if shares[side] > 0]
    for index in np.argsort(-sizes, kind="stable"):
        quota, rounded = quotas[index], exact[index] - quotas[index]
        wanted += rounded
        candidates = [side for side in used if rounded[side] > 1e-9]
        for _ in range(int(sizes[index] - quota.sum())):
            side = max(candidates, key=lambda side: (wanted[side], -side))
            candidates.remove(side)
            quota[side] += 1
            wanted[side] -= 1
        before = quota.copy()
        _fill_empty(quota, used)
        wanted += before - quota
    return quotas


def _fill_empty(quota: npt.NDArray[np.int64], used: list[int]) -> None:
    """Give each split a row of the class where it has enough of them, and train one before the others."""
    enough = used if quota.sum() >= len(used) else used[:1]
    for side in enough:
        if quota[side] == 0:
            quota[int(np.argmax(quota))] -= 1
            quota[side] += 1


# -- by group --------------------------------------------------------------------------------------------------------


def by_group(groups: npt.NDArray[Any], shares: Shares, seed: int) -> Sides:
    """Put all rows of a group into one split.

    The largest groups are placed first, each into the split that lacks most rows; groups of one size in random order.
    After `MOST_LOOPED` of them, the rest is dealt out in random order until each split has its share.

    Args:
        groups: Group of each row.
        shares: Of train, validation and test; a split with share 0 stays empty.
        seed: Decides the order of groups of one size.

    Raises:
        DataError: Fewer groups than splits.
    """
    names, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    used = [side for side in range(3) if shares[side] > 0]
    if len(names) < len(used):
        raise DataError(
            f"data.split.by: group needs at least {len(used)} groups, one for each split, and the column has "
            f"{len(names)}; choose another column, or use by: random"
        )
    order = np.random.default_rng([seed, len(names)]).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    lacking = np.asarray(shares) * len(groups)
    placed = np.zeros(len(names), np.int8)
    for group in order[:MOST_LOOPED]:
        side = max(used, key=lambda side: (lacking[side], -side))
        placed[group] = side
        lacking[side] -= sizes[group]
    rest = np.random.default_rng([seed, len(names), 1]).permutation(order[MOST_LOOPED:])
    # the middle of a group decides, so that each border is off by at most half of a group
    middles = np.cumsum(sizes[rest]) - sizes[rest] / 2
    placed[rest] = np.searchsorted(np.cumsum(np.maximum(lacking, 0))[:2], middles, side="right")
    for side in used:
        if not (placed == side).any():
            rich = np.bincount(placed, minlength=3).argmax()
            of_rich = order[placed[order] == rich]
            placed[of_rich[-1]] = side  # the smallest of the split with most groups
    return placed[codes]


# -- by time ---------------------------------------------------------------------------------------------------------


def by_time(times: npt.NDArray[Any], shares: Shares) -> Sides:
    """Put the oldest rows into train and the newest into test; rows of one time are never divided.

    Each border is between two times, where the shares are nearest to what was asked; the earlier one if two are equally
    near.

    Args:
        times: Time of each row: datetime64 or numbers.
        shares: Of train, validation and test; a split with share 0 stays empty.

    Raises:
        DataError: Fewer distinct times than splits.
    """
    distinct, codes, sizes = np.unique(times, return_inverse=True, return_counts=True)
    used = [side for side in range(3) if shares[side] > 0]
    if len(distinct) < len(used):
        raise DataError(
            f"data.split.by: time needs at least {len(used)} different times, one for each split, and the column has "
            f"{len(distinct)}; choose another column, or use by: random"
        )
    ends = np.cumsum(sizes)  # rows up to and including a time
    side_of_time = np.full(len(distinct), used[-1], np.int8)
    first = 0
    for position, side in enumerate(used[:-1]):
        wanted = len(times) * sum(shares[: side + 1])
        last = len(distinct) - (len(used) - position)  # leaves a time to each split that follows
        border = first + int(np.argmin(np.abs(ends[first : last + 1] - wanted)))
        side_of_time[first : border + 1] = side
        first = border + 1
    return side_of_time[codes]


# -- by a column that says it ----------------------------------------------------------------------------------------


def by_column(codes: npt.NDArray[np.int64], words: Sequence[str], where: Callable[[int], str]) -> Sides:
    """Read the split from a column: one of `SPLIT_WORDS`, in any case.

    Args:
        codes: Position of each row's value in `words`.
        words: The distinct values.
        where: Returns where a row is, with the column.

    Raises:
        DataError: Other values, with the first rows that have them.
    """
    known = {word: side for side, name in enumerate(SPLITS) for word in SPLIT_WORDS[name]}
    sides = np.array([known.get(word.strip().lower(), -1) for word in words], np.int8)
    found = sides[codes]
    wrong = np.flatnonzero(found < 0)
    if len(wrong):
        some = first_of([f"{where(row)}: {words[codes[row]]!r}" for row in wrong[:MOST_NAMED].tolist()], len(wrong))
        accepted = "; ".join(f"{name}: {', '.join(SPLIT_WORDS[name])}" for name in SPLITS)
        raise DataError(f"data.split.by: column: {some}; accepted are {accepted}. Correct them or the column")
    return found
