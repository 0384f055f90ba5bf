"""Problems of a table, collected so that the first ten are reported at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trainmaster_trainer.data.sentences import MOST_NAMED, first_of
from trainmaster_trainer.errors import DataError

from .cells import Bools
from .table import Column, Table


class ReadProblems:
    """What is wrong with a table, in the order in which it was found."""

    def __init__(self, shown: str) -> None:
        """Start without a problem.

        Args:
            shown: The address as the user wrote it.
        """
        self.shown = shown
        self.lines: list[str] = []
        self.count = 0

    @property
    def is_full(self) -> bool:
        """Whether further problems are counted only."""
        return len(self.lines) >= MOST_NAMED

    def add(self, line: str) -> None:
        """Note one problem."""
        self.count += 1
        if not self.is_full:
            self.lines.append(line)

    def more(self, count: int) -> None:
        """Count problems that aren't worth a sentence."""
        self.count += count

    def check(self, advice: str = "") -> None:
        """Raise if there is a problem.

        Raises:
            DataError: With the first ten problems and the number of the others.
        """
        if self.count:
            raise DataError(f"{self.shown}: {first_of(self.lines, self.count)}" + (f". {advice}" if advice else ""))


class CellProblems:
    """What is wrong with a table or with what was asked of it, collected to be said at once.

    Args:
        table: For the places of rows.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.sentences: list[str] = []
        self.advice: list[str] = []
        self._cells: list[tuple[int, int, str]] = []
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self.sentences or self._count)

    def say(self, sentence: str) -> None:
        """Add a problem that isn't one of single cells."""
        self.sentences.append(sentence)

    def cells(self, column: Column, wrong: Bools, words: Callable[[Any], str], advice: str, *, start: int = 0) -> None:
        """Add the cells of a column where `wrong` is true.

        Args:
            column: The column, or a piece of it.
            wrong: One value per row.
            words: Says what is wrong with a value.
            advice: What the user can do, said once at the end.
            start: Number of the piece's first row.
        """
        rows = np.flatnonzero(wrong)
        if len(rows) == 0:
            return
        self._count += len(rows)
        if advice not in self.advice:
            self.advice.append(advice)
        order = self.table.names.index(column.name)
        for row in rows[:MOST_NAMED].tolist():
            said = f"{self.table.where(start + row)}, column {column.name}: {words(column.values[row].as_py())}"
            self._cells.append((start + row, order, said))

    def check(self) -> None:
        """Return if there is no problem.

        Raises:
            DataError: With every sentence and the first ten cells, in the order of the rows.
        """
        if not self:
            return
        parts = first_of(self.sentences, between=". ")
        if self._count:
            cells = [said for _, _, said in sorted(self._cells)]
            parts += (". " if parts else "") + f"{self.table.shown}: {first_of(cells, self._count)}"
            advice = "; ".join(self.advice)
            parts += f". {advice[:1].upper()}{advice[1:]}"
        raise DataError(parts)
