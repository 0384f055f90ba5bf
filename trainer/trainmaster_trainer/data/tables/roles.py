"""Roles of columns: inferred by documented rules (docs/data.md), or declared; pure.

Roles are decided over all rows, which shows no statistics of the validation and test splits to the model: they are a
matter of types and of the number of distinct values. What is measured (means, categories) is measured in `encode`.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from trainmaster_api.spec.data import Data
from trainmaster_api.spec.table import ColumnSpec, Missing, Role
from trainmaster_api.spec.task import Task

from trainmaster_trainer.data.files import IMAGE_ENDINGS
from trainmaster_trainer.data.sentences import first_of

from .accepted import ACCEPTED, check_cells, check_target, first_values
from .cells import is_blank, is_missing, is_number_text, shown, without
from .distinct import Summary, count_distinct, summarize
from .problems import CellProblems
from .table import Column, ColumnType, Table

FEATURES = ("numeric", "boolean", "categorical", "datetime", "text", "image")
MOST_INFERRED = 1000  # categories that a role is inferred for
FEW = 20  # categories that are few in a table of any length
ROWS_PER_CATEGORY = 10
MOST_DECLARED = 10_000  # each is a float32 per row
_IMAGE_PATH = "(?i)(" + "|".join(re.escape(ending) for ending in IMAGE_ENDINGS) + ")$"


@dataclass(frozen=True)
class Planned:
    """What becomes of a column.

    Attributes:
        column: The column.
        role: Its role.
        why: Why, in a few words.
        declared: Whether the user declared the role.
        missing: What is done with missing values.
        indicator: Whether `impute` adds a feature that says where a value was missing.
        nulls: Number of missing values.
        distinct: Number of distinct values that aren't missing; 0 where the type has no order.
        summary: What else the same pass over the column has found; None: nothing.
    """

    column: Column
    role: Role | Literal["target"]
    why: str
    declared: bool = False
    missing: Missing = "error"
    indicator: bool = False
    nulls: int = 0
    distinct: int = 0
    summary: Summary | None = None

    @property
    def is_feature(self) -> bool:
        """Whether the model sees the column."""
        return self.role in FEATURES


def plan(table: Table, data: Data, task: Task) -> tuple[Planned, ...]:
    """Return each column's role: those of `data.features` in its order first, the others in the order of the table.

    Raises:
        DataError: With everything that is wrong: names that don't exist, roles that don't fit, the first ten cells.
    """
    problems = CellProblems(table)
    _check_names(table, data, problems)
    order = {name: index for index, name in enumerate(data.features or ())}
    columns = sorted(table.columns, key=lambda column: order.get(column.name, len(order)))
    planned = [_plan_column(column, data, problems) for column in columns]
    found = [each for each in planned if each is not None]
    for only in ("group", "weight"):
        named = [each.column.name for each in found if each.role == only]
        if len(named) > 1:
            problems.say(f"data.columns: {_quoted(named)} have the role {only}; at most one column can have it")
    if len(found) == len(planned) and not problems and not any(each.is_feature for each in found):
        reasons = first_of([f"{each.column.name}: {each.why}" for each in found if each.role == "ignore"])
        problems.say(
            f"{table.shown} has no column to predict from ({reasons or 'the target is its only column'}); "
            "declare roles in data.columns"
        )
    _check_text(found, problems)
    for each in found:
        if each.role == "target":
            check_target(each.column, task, each.distinct, problems)
        elif each.role != "ignore":
            check_cells(each.column, each.role, each.missing, problems, each.summary)
    problems.check()
    return tuple(found)


def _check_names(table: Table, data: Data, problems: CellProblems) -> None:
    """Find names of columns that don't exist, and contradictions between the target, features and columns."""
    assert data.target is not None  # a rule of the contract for tables
    where = {"data.target": [data.target], "data.features": data.features or [], "data.columns": list(data.columns)}
    unknown: dict[str, list[str]] = {}
    for field, names in where.items():
        for name in names:
            if name not in table.names:
                unknown.setdefault(name, []).append(field)
    if unknown:
        fields = " or ".join(dict.fromkeys(field for found in unknown.values() for field in found))
        known = ", ".join(table.names[:40]) + (f" and {len(table.names) - 40} more" if len(table.names) > 40 else "")
        problems.say(
            f"{table.shown} has no column {', '.join(_nearest(name, table.names) for name in unknown)}; "
            f"its columns are {known}. Correct {fields}"
        )
    features = data.features or []
    if data.target in features:
        problems.say(f"data.features contains the target {data.target!r}: the model would see the answer; remove it")
    twice = [name for name in dict.fromkeys(features) if features.count(name) > 1]
    if twice:
        problems.say(f"data.features names {_quoted(twice)} more than once; remove the repetition")
    if data.columns.get(data.target, ColumnSpec()) != ColumnSpec():
        problems.say(
            f"data.columns.{data.target}: is the target, whose role is fixed and which must not be missing; remove it"
        )


def _check_text(found: Sequence[Planned], problems: CellProblems) -> None:
    """Find other features beside text: no model of ours reads both."""
    texts = [each.column.name for each in found if each.role == "text"]
    others = [each.column.name for each in found if each.is_feature and each.role != "text"]
    if texts and others:
        problems.say(
            f"{_quoted(texts)} {'has' if len(texts) == 1 else 'have'} the role text, which can't be combined with "
            f"other features yet ({_quoted(others[:10])}): set data.features: [{', '.join(texts)}]"
        )


def _nearest(name: str, known: Sequence[str]) -> str:
    near = [each for each in known if each.casefold() == name.strip().casefold()]
    near = near or difflib.get_close_matches(name, known, n=1)
    return repr(name) + (f" (did you mean {near[0]!r}?)" if near else "")


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def said_of_plans(plans: Sequence[Planned]) -> bytes:
    """Return what becomes of columns as JSON, without their values."""
    names = [each.name for each in fields(Planned) if each.name not in ("column", "summary")]
    said = [{name: getattr(plan, name) for name in names} for plan in plans]
    named = [{"name": plan.column.name, **words} for plan, words in zip(plans, said, strict=True)]
    return json.dumps(named).encode()


def planned_again(said: bytes, table: Table, data: Data) -> tuple[Planned, ...]:
    """Return what `said_of_plans` was told, with the columns of the same table."""
    named = [(each.pop("name"), each) for each in json.loads(said)]
    return tuple(Planned(_as_read(table.column(name), data), **words) for name, words in named)


def _as_read(column: Column, data: Data) -> Column:
    if data.columns.get(column.name, ColumnSpec()).role == "text" and column.name != data.target:
        return without_blanks(column)
    return column


def _plan_column(column: Column, data: Data, problems: CellProblems) -> Planned | None:
    """Return what becomes of a column; None if that was a problem."""
    column = _as_read(column, data)
    summary = summarize(column)
    nulls = int(is_missing(column).sum()) if summary is None else summary.nulls
    distinct = count_distinct(column) if summary is None else summary.distinct
    if column.name == data.target:
        return Planned(column, "target", "data.target", True, nulls=nulls, distinct=distinct)
    spec = data.columns.get(column.name, ColumnSpec())
    if spec.role is None and column.name == data.split.column and data.split.by in ("column", "group"):
        role: Role = "group" if data.split.by == "group" else "ignore"
        return Planned(column, role, "data.split.column", True, nulls=nulls, distinct=distinct)
    if data.image_column not in (None, column.name) and spec.role is None:  # another role was refused by the contract
        why = f"the model sees the images of {data.image_column}"
        return Planned(column, "ignore", why, nulls=nulls, distinct=distinct)
    asked = data.features is not None and column.name in data.features
    role, why, refused = _role(column, spec.role, nulls, distinct, data.features, asked=asked)
    path = f"data.columns.{column.name}"
    if refused:
        problems.say(f"{'data.features' if spec.role is None else path + '.role'}: {refused}")
        return None
    missing: Missing = spec.missing or data.missing
    if spec.indicator and (missing != "impute" or role not in FEATURES or role == "text"):
        problems.say(
            f"{path}.indicator: is only accepted for a feature whose missing values are filled in; "
            + (
                f"{column.name!r} has the role {role}"
                if role not in FEATURES or role == "text"
                else f"set {path}.missing to impute"
            )
        )
        return None
    if role not in FEATURES or (role == "image" and missing == "impute"):
        missing = "error"
    return Planned(column, role, why, spec.role is not None, missing, spec.indicator, nulls, distinct, summary)


def without_blanks(column: Column) -> Column:
    """Return a text column with null in place of texts without a character, or with spaces only."""
    if column.type is not ColumnType.TEXT:
        return column
    chunks, count = [], 0
    for _, piece in column.pieces():  # nothing of the length of all texts is made
        blank = is_blank(piece.values.chunk(0))
        count += int(np.count_nonzero(blank))
        chunks.append(without(piece.values.chunk(0), blank))
    if not count:
        return column
    values = pa.chunked_array(chunks, type=pa.large_string())
    words = f"{count:,} text{'' if count == 1 else 's'} without a character, taken as missing"
    return replace(column, values=values, notes=(*column.notes, words))


def _role(
    column: Column, declared: Role | None, nulls: int, distinct: int, features: Sequence[str] | None, *, asked: bool
) -> tuple[Role, str, str]:
    """Return role and reason of a column, and what speaks against it."""
    if declared is not None:
        if asked and declared not in FEATURES:
            return declared, "", f"{column.name!r} has the role {declared} and is in data.features; remove one of them"
        if features is not None and not asked and declared in FEATURES:
            return "ignore", "not in data.features", ""
        return declared, "declared", _against(column, declared, distinct)
    if features is not None and not asked:
        return "ignore", "not in data.features", ""
    role, why = infer(column, nulls, distinct)
    if asked and role == "ignore" and distinct == 1 and column.type in INFERRED:
        role, why = INFERRED[column.type], "in data.features"  # one value is useless and does no harm
    if asked and role == "ignore":
        return role, why, f"{column.name!r} can't be a feature: {why}"
    return role, why, ""


INFERRED: dict[ColumnType, Role] = {
    ColumnType.BOOLEAN: "boolean",
    ColumnType.INTEGER: "numeric",
    ColumnType.NUMBER: "numeric",
    ColumnType.TIME: "datetime",
    ColumnType.TEXT: "categorical",
}
NO_ROLE = {
    ColumnType.EMPTY: "has no value in any row",
    ColumnType.BYTES: "holds bytes, which only the role image takes",
}


def infer(column: Column, nulls: int, distinct: int) -> tuple[Role, str]:
    """Return the role of a column that nothing is declared for, and why.

    Args:
        column: The column.
        nulls: Number of missing values.
        distinct: Number of distinct values that aren't missing.
    """
    values = len(column.values) - nulls
    if values == 0:
        return "ignore", NO_ROLE[ColumnType.EMPTY]
    if column.type not in INFERRED:
        return "ignore", NO_ROLE.get(column.type, f"holds {column.values.type}, which no role takes")
    if distinct == 1:
        one = column.values[int((~is_missing(column)).argmax())].as_py()
        return "ignore", f"has one value only, {shown(one)}" + (", or none" if nulls else "")
    if column.type is not ColumnType.TEXT:
        return INFERRED[column.type], f"its type is {column.type}"
    numeric = int(is_number_text(column).sum())
    if 2 * numeric > values > numeric:  # all of them: quoted numbers or leading zeros, which are names
        return "numeric", f"{numeric:,} of its {values:,} values are numbers"
    most = min(MOST_INFERRED, max(FEW, values // ROWS_PER_CATEGORY))
    if distinct > most or 2 * distinct > values:
        paths = int(pc.sum(pc.match_substring_regex(column.values, _IMAGE_PATH)).as_py() or 0)
        if 2 * paths > values:
            return "ignore", "text that ends as names of images do; declare image to use them"
        alike = ", each a number in quotes or with leading zeros" if numeric == values else ""
        return "ignore", (
            f"text with {distinct:,} distinct values in {values:,} rows{alike}, too many for categories; "
            f"declare {'numeric or categorical to use it' if alike else 'role: text to read it, or categorical'}"
        )
    return "categorical", f"text with {distinct:,} distinct values"


def _against(column: Column, role: Role, distinct: int) -> str:
    """Return why a column can't have a declared role; empty if it can."""
    accepted = ACCEPTED[role]
    if column.type not in accepted:
        if column.type in (ColumnType.BYTES, ColumnType.OTHER, ColumnType.EMPTY):
            what = NO_ROLE.get(column.type, f"holds {column.values.type}, which no role takes")
            return f"{column.name!r} {what}; remove it, or declare ignore"
        cells = first_values(column, ~is_missing(column))
        fitting = ", ".join(other for other, types in ACCEPTED.items() if column.type in types)
        return (
            f"{column.name!r} is of type {column.type} ({cells}) and can't be {role}, which takes "
            f"{', '.join(accepted)}; it can be {fitting}"
        )
    if role == "categorical" and distinct > MOST_DECLARED:
        return f"{column.name!r} has {distinct:,} distinct values; at most {MOST_DECLARED:,} can be categories"
    return ""
