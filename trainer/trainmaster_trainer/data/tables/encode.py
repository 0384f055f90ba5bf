"""Encoding: a table becomes float32 numbers, with what the train split says; packaged with the model."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from trainmaster_api.spec.task import Task

from .accepted import ACCEPTED, check_cells
from .ahead import will_need
from .cells import FLOAT32_MAX, Codes, categories, numbers
from .codes import CategoricalCode, Code, NumericCode, Out, code_from, fit_code
from .problems import CellProblems
from .roles import Planned
from .table import Column, ColumnType, Table

VERSION = 1
FARTHEST = 1e12
"""Largest scaled number, in standard deviations of the train split. A network's squares of larger ones overflow, which
would be a NonFiniteLoss with no word about the cell."""
BLOCK = 8 << 20
"""Bytes of features that are made together where they aren't kept in memory."""

SAME_CATEGORIES: dict[ColumnType, tuple[ColumnType, ...]] = {
    ColumnType.TEXT: (ColumnType.TEXT, ColumnType.INTEGER),
    ColumnType.INTEGER: (ColumnType.INTEGER, ColumnType.NUMBER, ColumnType.TEXT),
    ColumnType.NUMBER: (ColumnType.NUMBER, ColumnType.INTEGER),
    ColumnType.BOOLEAN: (ColumnType.BOOLEAN,),
}
"""Types of a column of new rows whose categories have the names that the train split's had, by its type there."""


@dataclass(frozen=True)
class Encoder:
    """Columns on their way to features, in order.

    Attributes:
        codes: One per column that the model sees.
    """

    codes: tuple[Code, ...]

    @classmethod
    def fit(
        cls,
        plans: Sequence[Planned],
        train: Codes,
        *,
        normalize: bool,
        is_index: bool = False,
        visit: Callable[[Code, Column], None] = lambda *_: None,
    ) -> Encoder:
        """Measure the train split, and nothing else.

        Args:
            plans: What becomes of each column.
            train: Row numbers of the train split in the table.
            normalize: Whether numbers and times are scaled; if not, numbers stay as they are.
            is_index: Whether a category is its number, and not a feature of its own.
            visit: Is given each code with its column, which is in memory then, where all columns may not be.
        """
        codes = []
        for each in plans:
            if each.is_feature:
                codes.append(fit_code(each, train, normalize=normalize, is_index=is_index))
                visit(codes[-1], each.column)
        return cls(tuple(codes))

    @property
    def categories(self) -> tuple[tuple[int, int], ...]:
        """The features that are numbers of categories, with how many there are."""
        starts = itertools.accumulate((len(code.features()) for code in self.codes), initial=0)
        codes = zip(starts, self.codes, strict=False)
        return tuple((at, code.number) for at, code in codes if isinstance(code, CategoricalCode) and code.is_index)

    @property
    def features(self) -> list[str]:
        """The names of the features in order."""
        return [feature for code in self.codes for feature in code.features()]

    def transform(self, table: Table) -> Out:
        """Return the features of new rows, float32 of (n, features).

        Columns that the model doesn't know, the target among them, are not used.

        Raises:
            DataError: A column is missing or of another kind, or a value can't be used; the first ten at once.
        """
        self.check(table)
        return self.matrix(table)

    def check(self, table: Table) -> None:
        """Check that new rows can be encoded.

        Raises:
            DataError: A column is missing or of another kind, or a value can't be used; the first ten at once.
        """
        problems = CellProblems(table)
        absent = [code.name for code in self.codes if code.name not in table.names]
        if absent:
            near = {name: difflib.get_close_matches(name, table.names, n=1) for name in absent}
            said = ", ".join(repr(name) + (f" (is it {near[name][0]!r}?)" if near[name] else "") for name in absent)
            problems.say(f"{table.shown} has no column {said}, which the model was trained with")
        for code in self.codes:
            if code.name in table.names:
                self._check(code, table.column(code.name), problems)
        problems.check()

    def matrix(self, table: Table, kept: Codes | None = None) -> Out:
        """Return the features of rows whose cells have been checked.

        Args:
            table: Has every column.
            kept: Row numbers, in order; default: all.

        Raises:
            DataError: A number is more than FARTHEST standard deviations from those of the train split.
        """
        out = np.empty((len(table) if kept is None else len(kept), len(self.features)), dtype=np.float32)
        problems = CellProblems(table)
        self._write(table, kept, out, problems)
        problems.check()
        return out

    def blocks(self, table: Table, kept: Codes, first: int = 0) -> Iterator[Out]:
        """Yield the features of rows some at a time: the same numbers as `matrix` returns.

        Nothing is yielded of or after rows that can't be scaled.

        Args:
            table: Has every column.
            kept: Row numbers, in order.
            first: Which of them to begin with.

        Raises:
            DataError: As `matrix`, at the end.
        """
        width, problems = len(self.features), CellProblems(table)
        at_once = max(256, BLOCK // max(1, 4 * width))
        for start in range(first, len(kept), at_once):
            rows = kept[start : start + at_once]
            begin, end = int(rows[0]), int(rows[-1]) + 1
            out = np.empty((len(rows), width), dtype=np.float32)
            local = rows - begin if len(rows) < end - begin else None
            self._write(table.slice(begin, end - begin), local, out, problems, begin)
            if not problems:
                yield out
        problems.check()

    def _write(self, table: Table, kept: Codes | None, out: Out, problems: CellProblems, first_row: int = 0) -> None:
        start = 0
        for code in self.codes:
            column, width = table.column(code.name), len(code.features())
            will_need(column.values)
            part = out[:, start : start + width] if kept is None else np.empty((len(table), width), np.float32)
            with np.errstate(over="ignore"):
                code.write(column, part)
            is_plain = isinstance(code, NumericCode) and not code.is_scaled
            wrong = np.asarray(~(np.abs(part) <= (FLOAT32_MAX if is_plain else FARTHEST)).all(axis=1))
            if kept is not None:
                out[:, start : start + width] = part[kept]
                wrong &= np.isin(np.arange(len(table)), kept)
            problems.cells(
                column, wrong, lambda value: f"{value} is too far from the values of the train split to be scaled",
                "correct the cells, or set data.normalize to false", start=first_row,
            )  # fmt: skip
            start += width

    def _check(self, code: Code, column: Column, problems: CellProblems) -> None:
        accepted = SAME_CATEGORIES[code.type] if code.ROLE == "categorical" else ACCEPTED[code.ROLE]
        if column.type not in (*accepted, ColumnType.EMPTY):
            problems.say(
                f"{problems.table.shown}: column {code.name!r} is of type {column.type}; "
                f"the model was trained with {code.type} and takes {', '.join(accepted)}"
            )
            return
        # a prediction per row is expected, so that no row is dropped here
        missing = "error" if code.missing == "drop" else code.missing
        check_cells(column, code.ROLE, missing, problems)

    def wire(self) -> dict[str, Any]:
        """Return what `read` reads; JSON keeps each float exactly."""
        columns = [{"role": code.ROLE, **dataclasses.asdict(code)} for code in self.codes]
        return {"version": VERSION, "columns": columns}

    @classmethod
    def read(cls, wire: dict[str, Any]) -> Encoder:
        """Return the encoder that was written.

        Raises:
            ValueError: A later version wrote it.
        """
        if wire["version"] != VERSION:
            raise ValueError(f"the package's encoding has version {wire['version']}; this Trainmaster reads {VERSION}")
        return cls(tuple(code_from(column) for column in wire["columns"]))


def encode_target(column: Column, task: Task) -> tuple[npt.NDArray[Any], list[str]]:
    """Return the targets and the names of the classes: int64 classes, or float64 numbers and no names.

    Classes are all those of the table, named as in the file and numbered by size, text by code points.
    """
    if task.name != "classification":
        return numbers(column), []
    names, codes = categories(column)
    return codes, names
