"""What is wrong with a document: one problem, and many of them as text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

_SHOWN = 80


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a document.

    Attributes:
        path: Where, as in `spec.training.data.features[0]`; empty: the document itself.
        message: What is wrong, a clause that follows the path.
        value: The value at the path, as text; empty where there is none.
        accepted: What would be accepted there; empty if the message already has it.
        hint: The next thing to do; may be empty.
        line: Line in the file, from 1; 0: unknown.
    """

    path: str
    message: str
    value: str = ""
    accepted: str = ""
    hint: str = ""
    line: int = 0

    def __str__(self) -> str:
        """Return one line: path, value, message, what is accepted, what to do."""
        where = f"{self.path} = {self.value}" if self.path and self.value else self.path or self.value
        link = " " if self.message.endswith(" be") else ": "
        text = self.message + (f"{link}{self.accepted}" if self.accepted else "") + (f"; {self.hint}" * bool(self.hint))
        return f"{where}: {text}" if where else text


def format_problems(problems: list[Problem], name: str = "") -> str:
    """Return all problems as text, one per line. `name`: the file, put before the line numbers."""
    lines = []
    for problem in problems:
        at = ":".join(part for part in (name, str(problem.line) if problem.line else "") if part)
        lines.append(f"{at}: {problem}" if at else str(problem))
    return "\n".join(lines)


def shown(value: Any) -> str:
    """Return a value as it may appear in a message: JSON, truncated if it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
