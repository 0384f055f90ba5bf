"""The split that was asked for, made and put into words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from trainmaster_api.spec.data import Split

from trainmaster_trainer.errors import ConfigurationError, DataError

from .order import Indices, split_rows
from .sentences import MOST_NAMED, first_of
from .split import SPLITS, Shares, Sides, by_column, by_group, by_time, stratified

FAR = 0.05  # a split whose share of the rows is further than this from what was asked is a warning


@dataclass(frozen=True)
class Keys:
    """What a split may go by.

    Attributes:
        rows: Number of rows: those of `source`, then of `validationSource`, then of `testSource`.
        classes: Class of each row; None: a regression, or not known before the rows are read.
        class_names: Names of the classes, for sentences.
        values: Values of `split.column`, without nulls: numbers or datetime64 for times; for groups and for a column
            that says the split, the position of each row's value in `words`.
        words: The distinct values, where `values` are positions.
        where: Returns where a row is, for messages: `row 18`.
        validation_rows: How many rows come from `validationSource`; `test_rows` likewise.
    """

    rows: int
    classes: npt.NDArray[np.int64] | None = None
    class_names: Sequence[str] = ()
    values: npt.NDArray[Any] | None = None
    words: Sequence[str] = ()
    where: Callable[[int], str] = lambda row: f"row {row + 1}"
    validation_rows: int = 0
    test_rows: int = 0


@dataclass(frozen=True)
class Division:
    """Row numbers of the three splits, each in random order.

    Attributes:
        by: What the split went by; `sources`: each split has its own.
        said: What the user is told, a sentence each.
        warnings: Those of `said` that differ from what was asked.
    """

    train: Indices
    validation: Indices
    test: Indices
    by: str
    said: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Indices, Indices, Indices]:
        """Return the three arrays of row numbers."""
        return self.train, self.validation, self.test


def divide(split: Split, keys: Keys) -> Division:
    """Divide rows as the specification says.

    Args:
        split: `data.split`.
        keys: The number of rows, and what is known of each.

    Raises:
        ConfigurationError: What the split goes by isn't there.
        DataError: The values can't be divided into the splits that have a share.
    """
    own = keys.rows - keys.validation_rows - keys.test_rows
    if keys.validation_rows and keys.test_rows:
        return _undivided(split, keys, own)
    shares = _shares(split, keys)
    inner = replace(
        keys,
        rows=own,
        classes=None if keys.classes is None else keys.classes[:own],
        values=None if keys.values is None else keys.values[:own],
    )
    by, said, warnings = _kind(split, inner, shares)
    if by == "random":
        parts = split_rows(own, shares[0], shares[1], split.seed)
    else:
        sides, told = _SIDES[by](split, inner, shares)
        said += told
        # within a split the order is random: statistics of images look at its first rows only
        order = np.random.default_rng([split.seed, own]).permutation(own)
        parts = order[sides[order] == 0], order[sides[order] == 1], order[sides[order] == 2]
    counts = [len(part) for part in parts]
    amounts = _amounts(counts, shares if by != "column" else None)
    said.insert(0, f"split {_WORDS[by].format(column=split.column)}: {amounts}")
    if by not in ("random", "column"):
        warnings += _missed(by, counts, shares)
    validation, test = _of_sources(split, keys, own)
    for name, rows in (("validation", validation), ("test", test)):
        if len(rows):
            said.append(f"the {name} split is data.{name}Source: {len(rows):,} rows")
    return Division(
        parts[0],
        validation if len(validation) else parts[1],
        test if len(test) else parts[2],
        by,
        (*said, *warnings),
        tuple(warnings),
    )


def _undivided(split: Split, keys: Keys, own: int) -> Division:
    """Return the split where each has a source of its own."""
    parts = (np.random.default_rng([split.seed, own]).permutation(own), *_of_sources(split, keys, own))
    amounts = ", ".join(f"{name} {len(rows):,} rows" for name, rows in zip(SPLITS, parts, strict=True))
    return Division(*parts, "sources", (f"split by source: {amounts}",))


def _of_sources(split: Split, keys: Keys, own: int) -> tuple[Indices, Indices]:
    """Return the rows of `validationSource` and of `testSource`, in random order as those of other splits."""
    rows = np.split(np.arange(own, keys.rows, dtype=np.int64), [keys.validation_rows])
    validation, test = (np.random.default_rng([split.seed, len(each)]).permutation(each) for each in rows)
    return validation, test


def rows_for_stratified(shares: Shares) -> int:
    """Return how many rows the smallest class needs for the default to be stratified: one at the smallest share."""
    return math.ceil(1 / min(share for share in shares if share > 0) - 1e-9)


def _shares(split: Split, keys: Keys) -> Shares:
    """Return the shares of the rows of `source`: a split with a source of its own has none of them."""
    asked = (
        split.train,
        0.0 if keys.validation_rows else split.validation,
        0.0 if keys.test_rows else split.test,
    )
    if sum(share > 0 for share in asked) == 3:
        return asked
    return tuple(share / sum(asked) for share in asked)  # type: ignore[return-value]


def _kind(split: Split, keys: Keys, shares: Shares) -> tuple[str, list[str], list[str]]:
    """Return what the split goes by, with what there is to say and to warn of."""
    if split.by in ("group", "time", "column") and keys.values is None:
        raise ConfigurationError(
            f"data.split.by: {split.by} needs a column, and this source has none; use random or stratified"
        )
    if split.by == "stratified" and keys.classes is None:
        raise ConfigurationError(
            "data.split.by: stratified needs the class of every row before the first step, which this source doesn't "
            "have; use random"
        )
    if keys.classes is None or split.by not in (None, "stratified"):
        return split.by or "random", [], []
    names, counts = np.unique(keys.classes, return_counts=True)
    if split.by is None:
        least = rows_for_stratified(shares)
        few = np.flatnonzero(counts < least)
        if len(few):
            one = int(few[np.argmin(counts[few])])
            return "random", [], [
                f"split at random, not stratified: class {_name(keys, names[one])} has {_rows(counts[one])}, and each "
                f"class needs {least} for one in each split; set data.split.by: stratified to divide the others, or "
                "random to accept this"
            ]  # fmt: skip
        return "stratified", [], []
    used = sum(share > 0 for share in shares)
    small = np.flatnonzero(counts < used)
    named = [f"{_name(keys, names[index])} ({_rows(counts[index])})" for index in small[:MOST_NAMED]]
    some = first_of(named, len(small), ", ")
    said = [f"classes with too few rows for every split: {some}; add rows of them"] if len(small) else []
    return "stratified", [], said


def _name(keys: Keys, code: Any) -> str:
    return f"`{keys.class_names[code]}`" if 0 <= code < len(keys.class_names) else str(code)


def _rows(count: Any) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _stratified(split: Split, keys: Keys, shares: Shares) -> tuple[Sides, list[str]]:
    assert keys.classes is not None
    return stratified(keys.classes, shares, split.seed), []


def _group(split: Split, keys: Keys, shares: Shares) -> tuple[Sides, list[str]]:
    assert keys.values is not None
    sides = by_group(keys.values, shares, split.seed)
    groups = [len(np.unique(keys.values[sides == side])) for side in range(3)]
    some = ", ".join(f"{name} {count:,}" for name, count in zip(SPLITS, groups, strict=True) if count)
    return sides, [f"groups: {some}; none is in two splits"]


def _time(split: Split, keys: Keys, shares: Shares) -> tuple[Sides, list[str]]:
    assert keys.values is not None
    is_time = np.isfinite(keys.values)
    if not is_time.all():
        row = int(np.argmin(is_time))
        raise DataError(
            f"{keys.where(row)}, column {split.column}: {keys.values[row]} is no time to split by; correct or remove it"
        )
    sides = by_time(keys.values, shares)
    some = [
        f"{name} from {_moment(part.min())} to {_moment(part.max())}"
        for name, part in ((name, keys.values[sides == side]) for side, name in enumerate(SPLITS))
        if len(part)
    ]
    return sides, [f"times: {', '.join(some)}; rows of one time are in one split"]


def _moment(value: Any) -> str:
    if not isinstance(value, np.datetime64):
        return str(value)
    return str(value.astype("datetime64[us]").item())


def _column(split: Split, keys: Keys, shares: Shares) -> tuple[Sides, list[str]]:
    assert keys.values is not None
    where = lambda row: f"{keys.where(row)}, column {split.column}"  # noqa: E731
    return by_column(keys.values, keys.words, where), [
        "split.train, validation and test are ignored: the column decides"
    ]


_SIDES = {"stratified": _stratified, "group": _group, "time": _time, "column": _column}
_WORDS = {
    "random": "at random",
    "stratified": "by class",
    "group": "by group",
    "time": "by time",
    "column": "by column {column}",
}


def _amounts(counts: list[int], shares: Shares | None) -> str:
    total = sum(counts) or 1
    found = []
    for side, name in enumerate(SPLITS):
        if shares is None or shares[side] > 0:
            asked = (
                f" of {shares[side]:.1%} asked" if shares and abs(counts[side] / total - shares[side]) > 0.001 else ""
            )
            found.append(f"{name} {counts[side]:,} rows ({counts[side] / total:.1%}{asked})")
    return ", ".join(found)


def _missed(by: str, counts: list[int], shares: Shares) -> list[str]:
    total = sum(counts) or 1
    far = [
        f"{name} {counts[side] / total:.1%} instead of {shares[side]:.1%}"
        for side, name in enumerate(SPLITS)
        if abs(counts[side] / total - shares[side]) > FAR
    ]
    if not far:
        return []
    why = {
        "stratified": "every class has a row in each split, and there are many small classes",
        "group": "a group can't be divided; more or smaller groups come nearer",
        "time": "rows of one time can't be divided; a finer time comes nearer",
    }[by]
    return [f"the split is far from its shares ({', '.join(far)}): {why}"]
