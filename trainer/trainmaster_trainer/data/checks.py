"""What is wrong with a split table before the first step: leaks that give scores which no new data reaches.

Pure: a table, the names of its columns and the split go in, findings come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from trainmaster_api.spec.data import SPLIT_WORDS

from .division import Division
from .duplicates import Copies, codes_of, copies, row_ids
from .finding import Checked, Finding
from .leaks import LEAST_ROWS, Scores, copy_of_target, predictors, refused, sorted_by_target
from .order import Indices
from .sentences import first_of, quoted
from .split import SPLITS
from .tables.table import Column, ColumnType, Table

MOST_EXAMPLES = 3
Ids = Callable[[Callable[[Column], None]], Indices]


def check(
    table: Table,
    target: str,
    features: Sequence[str],
    division: Division,
    ids: Ids | None = None,
    *,
    is_classification: bool,
    group: str | None = None,
    time: str | None = None,
) -> list[Finding]:
    """Return what is wrong, what is refused first.

    Args:
        table: The rows, those of `validationSource` and `testSource` included.
        target: Name of the column to predict.
        features: Names of the columns to predict from.
        division: The split, with the numbers of the table's rows.
        ids: Returns for each row the number of the first one that is a copy, and may give each column that it has read
            to the function that it gets; default: rows are copies if features and target are equal.
        is_classification: Whether the target is a class.
        group: Column with the role group, whatever the split goes by.
        time: Column that the split goes by, with `by: time`.
    """
    columns = [table.column(name) for name in features if name != target]
    asked = Checked(table, table.column(target), columns, division, is_classification, group, time)
    found: list[Finding] = []
    if target in features:
        found.append(refused(asked, target, "is the target itself"))
    copied = {}
    if len(table) >= LEAST_ROWS:
        copied = {column.name: words for column in columns if (words := copy_of_target(asked, column))}
    found += [refused(asked, name, words) for name, words in copied.items()]
    indexes = {} if asked.target.values.null_count else dict(sorted_by_target(asked, set(copied)))
    found += indexes.values()
    scores = Scores(asked, {*copied, *indexes})
    numbers = (ids or partial(row_ids, [asked.target, *columns], len(table)))(scores.visit) if columns else None
    found += predictors(asked, scores)
    found += _duplicates(asked, numbers)
    found += _groups(asked)
    found += _said_splits(asked)
    if is_classification:
        found += missing_classes(*asked.classes(), division)
    return found


def _duplicates(asked: Checked, ids: Indices | None) -> Iterator[Finding]:
    """Yield rows that are copies, by default equal in all features and the target, and are in two splits."""
    if ids is None:
        return
    train, validation, test = asked.division.parts
    or_group = "" if asked.division.by == "sources" else ", or use data.split.by: group"
    leaked = copies(ids, train, np.concatenate([validation, test]))
    if len(leaked.rows):
        words = (
            f"{_count(leaked)} of train {_are(leaked)} of validation or test ({_pairs(asked, leaked)}): the scores "
            f"will be too good. Set data.dedupe: true to remove them from train{or_group}"
        )
        yield Finding("warn", words, _leak(leaked, "train"))
    shared = copies(ids, validation, test)
    if len(shared.rows):
        words = (
            f"{_count(shared)} of validation {_are(shared)} of test ({_pairs(asked, shared)}): the test isn't "
            f"independent of the choice of the checkpoint. Remove the copies from the data{or_group}"
        )
        yield Finding("warn", words, _leak(shared, "validation"))


def _count(found: Copies) -> str:
    return "1 row" if len(found.rows) == 1 else f"{len(found.rows):,} rows"


def _are(found: Copies) -> str:
    return "is an exact copy of a row" if len(found.rows) == 1 else "are exact copies of rows"


def _pairs(asked: Checked, found: Copies) -> str:
    pairs = list(zip(found.rows[:MOST_EXAMPLES].tolist(), found.others[:MOST_EXAMPLES].tolist(), strict=True))
    some = "; ".join(f"{asked.table.where(a)} = {asked.table.where(b)}" for a, b in pairs)
    return some + ("; ..." if len(found.rows) > len(pairs) else "")


def _leak(found: Copies, split: str) -> dict[str, Any]:
    examples = [found.rows[:MOST_EXAMPLES].tolist(), found.others[:MOST_EXAMPLES].tolist()]
    return {"kind": "duplicates", "split": split, "rows": len(found.rows), "examples": examples}


def _groups(asked: Checked) -> Iterator[Finding]:
    """Yield the groups that are in two splits."""
    if asked.group is None:
        return
    column = asked.table.column(asked.group)
    codes = codes_of(column.values)
    seen = np.zeros((3, int(codes.max()) + 1), bool)
    for side, rows in enumerate(asked.division.parts):
        seen[side, codes[rows]] = True
    split_groups = np.flatnonzero(seen.sum(axis=0) > 1)
    if not len(split_groups):
        return
    names = pc.unique(column.values)
    some = [str(names[int(index)].as_py()) for index in split_groups[:MOST_EXAMPLES]]
    remedy = "Move each group into one source"
    if asked.division.by != "sources":
        remedy = f"Set data.split.by: group; where a split has a source of its own, {remedy[0].lower()}{remedy[1:]}"
    words = (
        f"{len(split_groups):,} of {seen.shape[1]:,} groups of `{asked.group}` are in more than one split "
        f"({', '.join(some)}{', ...' if len(split_groups) > len(some) else ''}): the model is tested on groups that it "
        f"has seen. {remedy}"
    )
    yield Finding("warn", words, {"kind": "group", "column": asked.group, "groups": len(split_groups)})


def _said_splits(asked: Checked) -> Iterator[Finding]:
    """Yield columns that say the split of each row where the split doesn't go by one."""
    known = {word for words in SPLIT_WORDS.values() for word in words}
    for column in asked.table.columns if asked.division.by != "column" else ():
        if column.type is not ColumnType.TEXT or column.name == asked.target.name:
            continue
        few = pc.unique(column.values.slice(0, LEAST_ROWS)).drop_null().to_pylist()
        if not few or not {word.strip().lower() for word in few} <= known:
            continue  # nearly every column
        words = [word for word in pc.unique(column.values).to_pylist() if word is not None]
        if len(words) < 2 or not {word.strip().lower() for word in words} <= known:
            continue
        is_feature = any(each.name == column.name for each in asked.features)
        sentence = (
            f"column `{column.name}` says {quoted(sorted(words))}, and the split doesn't go by it"
            f"{'; it is a feature' if is_feature else ''}: set data.split.by: column and data.split.column: "
            f"{column.name}, or data.columns.{column.name}.role: ignore"
        )
        yield Finding("warn", sentence, {"kind": "split-column", "column": column.name})


def missing_classes(codes: npt.NDArray[np.int64], names: Sequence[str | None], division: Division) -> Iterator[Finding]:
    """Yield for each split the classes that it lacks.

    Args:
        codes: Class of each row as its position in `names`.
        names: Names of the classes; None: rows without a class.
        division: The split.
    """
    sizes = np.bincount(codes, minlength=len(names))
    for name, rows in zip(SPLITS, division.parts, strict=True):
        present = np.zeros(len(names), bool)
        present[codes[rows]] = True
        lacking = [index for index in np.flatnonzero(~present & (sizes > 0)).tolist() if names[index] is not None]
        if not lacking:
            continue
        some = first_of([f"`{names[index]}` ({sizes[index]:,} rows)" for index in lacking], between=", ")
        why = "can't be learned" if name == "train" else "don't count in its metrics"
        remedy = "Add" if division.by == "sources" else "Set data.split.by: stratified, or add"
        words = f"the {name} split has no row of class {some}: they {why}. {remedy} rows of them"
        details = {"kind": "missing-class", "split": name, "classes": [names[index] for index in lacking]}
        yield Finding("warn", words, details)
