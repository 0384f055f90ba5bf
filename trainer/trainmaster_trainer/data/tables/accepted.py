"""Which types and which cells a role takes; the same for the rows of a run and for new rows of a packaged model."""

from __future__ import annotations

from typing import Any

import numpy as np
from trainmaster_api.spec.table import Missing, Role
from trainmaster_api.spec.task import Task

from .cells import FLOAT32_MAX, Bools, Floats, is_missing, is_number_text, numbers, shown
from .distinct import Summary
from .problems import CellProblems
from .table import Column, ColumnType

SHOWN_ROWS = 3
_NUMBERS = (ColumnType.INTEGER, ColumnType.NUMBER)

ACCEPTED: dict[Role, tuple[ColumnType, ...]] = {
    "numeric": (*_NUMBERS, ColumnType.BOOLEAN, ColumnType.TEXT),  # text: if each value is a number
    "boolean": (ColumnType.BOOLEAN, *_NUMBERS),  # numbers: if each is 0 or 1
    "categorical": (ColumnType.TEXT, *_NUMBERS, ColumnType.BOOLEAN),
    "datetime": (ColumnType.TIME,),
    "text": (ColumnType.TEXT,),
    "image": (ColumnType.TEXT, ColumnType.BYTES),  # paths, or files
    "group": (ColumnType.TEXT, *_NUMBERS, ColumnType.BOOLEAN, ColumnType.TIME),
    "weight": _NUMBERS,
    "ignore": tuple(ColumnType),
}
FILL = "correct the cells, or set data.missing (or data.columns.<name>.missing) to impute or drop"
CORRECT = "correct the cells, or declare the column ignore in data.columns"
WORDS = (
    "correct the cells, add words that mean null to data.nulls, or declare the column categorical or ignore "
    "in data.columns"
)
IMAGES = "correct the cells, or set data.missing to drop"
ROWS = "remove these rows or fill the cells: the column must have a value in every row"


def not_finite(value: Any) -> str:
    """Say what is wrong with a number that is infinite, or too large for a float32."""
    if isinstance(value, float) and np.isfinite(value):
        return f"{value!r} is beyond float32, whose largest number is {FLOAT32_MAX:.4g}"
    return f"{shown(value)} is not a finite number"


def check_cells(
    column: Column, role: Role, missing: Missing, problems: CellProblems, summary: Summary | None = None
) -> None:
    """Find the cells that a role can't take: missing, infinite, beyond float32, of another kind.

    Args:
        column: Of a type that the role accepts.
        role: Its role.
        missing: What is done with missing values; a group or weight must have none.
        problems: Gets the cells.
        summary: Of the column, if there is one: what it excludes is not looked for.
    """
    is_required = role in ("group", "weight")
    if (is_required or missing == "error") and (summary is None or summary.nulls):
        advice = ROWS if is_required else IMAGES if role == "image" else FILL
        for start, piece in column.pieces():
            problems.cells(piece, is_missing(piece), lambda _: "is empty", advice, start=start)
    if role == "numeric" and column.type is ColumnType.TEXT:
        are_numbers = True
        for start, piece in column.pieces():
            wrong = ~is_number_text(piece) & ~is_missing(piece)
            problems.cells(piece, wrong, not_finite, WORDS, start=start)
            are_numbers = are_numbers and not wrong.any()
        if not are_numbers:
            return
    if role == "image":
        return
    is_small = summary is not None and not max(abs(summary.low), abs(summary.high)) > FLOAT32_MAX
    if not is_small and role != "boolean" and (role in ("numeric", "weight") or column.type is ColumnType.NUMBER):
        for start, piece in column.pieces():
            wrong = ~is_missing(piece) & ~(np.abs(numbers(piece)) <= FLOAT32_MAX)
            problems.cells(piece, wrong, not_finite, CORRECT, start=start)
    if role == "weight":
        _check_weights(column, numbers(column), problems)
    if role == "boolean" and column.type is not ColumnType.BOOLEAN:
        for start, piece in column.pieces():
            found = numbers(piece)
            wrong = ~is_missing(piece) & (found != 0) & (found != 1)
            problems.cells(
                piece, wrong, lambda value: f"{value} is neither 0 nor 1", "declare the column numeric", start=start
            )


def _check_weights(column: Column, found: Floats, problems: CellProblems) -> None:
    """Find what makes numbers useless as weights of the loss."""
    problems.cells(
        column, found < 0, lambda value: f"{value} is negative, and a weight is 0 or more", "correct the weights"
    )
    if not (found > 0).any():
        problems.say(
            f"column {column.name!r} has the role weight and is 0 in every row: nothing would be trained; correct it, "
            "or declare it ignore in data.columns"
        )


def check_target(column: Column, task: Task, distinct: int, problems: CellProblems) -> None:
    """Find what makes a column useless as a target, and its cells that are missing or no class or number."""
    name, path = column.name, f"data.target {column.name!r}"
    if column.type in (ColumnType.BYTES, ColumnType.OTHER, ColumnType.EMPTY, ColumnType.TIME):
        takes = "text, integers, booleans" if task.name == "classification" else "numbers"
        what = "has no value in any row" if column.type is ColumnType.EMPTY else f"is of type {column.values.type}"
        problems.say(f"{path} {what}; a {task.name} takes {takes}")
        return
    absent = is_missing(column)
    is_class = task.name == "classification"
    problems.cells(column, absent, lambda _: "the class is empty" if is_class else "the target is empty", ROWS)
    if distinct == 1:
        one = shown(column.values[int((~absent).argmax())].as_py())
        problems.say(f"{path} has one value only, {one}: there is nothing to predict; choose another column")
    if is_class:
        if column.type is ColumnType.NUMBER:
            found = numbers(column)
            wrong = ~absent & ~((np.abs(found) <= 2.0**53) & (np.floor(found) == found))
            if _are_most(wrong, absent):
                problems.say(
                    f"{path} has numbers with fractions ({first_values(column, wrong)}), and a class is a name or a "
                    "whole number; set task.name to regression, or choose another column"
                )
                return
            problems.cells(
                column, wrong, lambda value: f"{value} is not a whole number, as a class must be",
                f"set task.name to regression, or let {name} hold names or whole numbers",
            )  # fmt: skip
    elif column.type is ColumnType.BOOLEAN:
        problems.say(f"{path} is true or false, and a regression takes numbers; set task.name to classification")
    elif column.type is ColumnType.TEXT:
        wrong = ~is_number_text(column) & ~absent
        if _are_most(wrong, absent):
            problems.say(
                f"{path} is text ({first_values(column, wrong)}), and a regression takes numbers; set task.name to "
                "classification, or choose another column"
            )
            return
        problems.cells(
            column,
            wrong,
            not_finite,
            "a regression takes numbers: correct the cells, or set task.name to classification",
        )
        if not wrong.any():
            problems.say(
                f"{path} is text, though its values look like numbers (quoted, or with leading zeros); "
                "a regression takes numbers: write them without quotes"
            )
    else:
        found = numbers(column)
        problems.cells(column, ~absent & ~(np.abs(found) <= FLOAT32_MAX), not_finite, ROWS)


def _are_most(wrong: Bools, absent: Bools) -> bool:
    """Return whether a column is of another kind: not single cells of it are wrong, but most."""
    return 2 * int(wrong.sum()) > int((~absent).sum())


def first_values(column: Column, chosen: Bools) -> str:
    """Return the first values of a column for a message: `row 1: 160.9, row 2: 168.1`."""
    rows = np.flatnonzero(chosen)[:SHOWN_ROWS].tolist()
    return ", ".join(f"row {row + 1}: {shown(column.values[row].as_py())}" for row in rows)
