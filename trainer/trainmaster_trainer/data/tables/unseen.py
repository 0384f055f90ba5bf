"""Categories that the train split doesn't have: they are encoded as `another`, which nothing trains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainmaster_trainer.data.division import Division
from trainmaster_trainer.data.sentences import first_of

from .cells import Codes, categories, shown
from .codes import CategoricalCode
from .encode import Encoder
from .table import Column, Table


def unseen(known: Sequence[str], names: Sequence[str], found: Codes) -> tuple[list[str], list[int]]:
    """Return the categories of rows that aren't among the known ones, the most frequent first, and their rows.

    Args:
        known: Categories of the train split.
        names: All categories of a column.
        found: Number of each row's category in `names`; -1: missing.
    """
    sizes = np.bincount(found[found >= 0], minlength=len(names))
    seen = set(known)
    new = np.array([name not in seen for name in names], dtype=np.bool_)
    order = np.argsort(-sizes, kind="stable")
    chosen = [index for index in order.tolist() if new[index] and sizes[index]]
    return [names[index] for index in chosen], [int(sizes[index]) for index in chosen]


def named(names: Sequence[str], sizes: Sequence[int]) -> str:
    """Return the first categories with their numbers of rows."""
    return first_of([f"{shown(name)} ({size:,})" for name, size in zip(names, sizes, strict=True)], between=", ")


def unseen_in_splits(encoder: Encoder, table: Table, division: Division) -> tuple[str, ...]:
    """Return a warning for each column whose categories in validation or test aren't all in train.

    Args:
        encoder: Fitted on the train split.
        table: All rows.
        division: The split, in numbers of the table's rows.
    """
    found = (
        _warning(code, table.column(code.name), division) for code in encoder.codes if isinstance(code, CategoricalCode)
    )
    return tuple(filter(None, found))


def _warning(code: CategoricalCode, column: Column, division: Division) -> str:
    names, found = categories(column)
    held = found[np.concatenate([division.validation, division.test])]
    new, sizes = unseen(code.categories, names, held)
    is_missing_new = code.missing == "impute" and not code.has_missing
    missing = int(np.count_nonzero(held == -1)) if is_missing_new else 0
    if not new and not missing:
        return ""
    is_known = np.append(np.isin(np.array(names, dtype=object), code.categories), not is_missing_new)
    parts = {"validation": division.validation, "test": division.test}
    counts = {split: (int(np.count_nonzero(~is_known[found[rows]])), len(rows)) for split, rows in parts.items()}
    of_splits = " and ".join(
        f"{count:,} of {rows:,} rows of {split}" for split, (count, rows) in counts.items() if count
    )
    some = ", ".join(filter(None, (named(new, sizes), f"missing values ({missing:,})" if missing else "")))
    what = (
        "number 0, whose embedding isn't trained" if code.is_index else "the feature `{}`, whose weight isn't trained"
    )
    return (
        f"column {code.name}: {of_splits} have a category that train doesn't have: {some}. They are encoded as "
        f"{what.format(f'{code.name} is another')}, so they are predicted from the other columns; give train rows of "
        "them, or judge the scores with that in mind"
    )
