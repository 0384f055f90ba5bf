"""Problems of a table, collected so that the first ten are reported at once."""

from __future__ import annotations

from trainmaster_trainer.data.sentences import MOST_NAMED, first_of
from trainmaster_trainer.errors import DataError


class Problems:
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
