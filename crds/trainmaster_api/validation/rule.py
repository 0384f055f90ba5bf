"""What a rule is: one statement, in CEL for the API server and in Python for everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """What must hold for the object at `scope`.

    Attributes:
        id: short name, for tests and documents.
        scope: dotted path of the object that the rule reads; empty: the whole TrainingJob.
        field: dotted path below `scope` that the sentence is about; empty: the object itself.
        reads: dotted paths below `scope`; the rule is silent while one of them has a problem of its own.
        cel: the rule as a CEL expression over `self`.
        check: the same in Python, over the object as plain JSON data.
        message: what is wrong and what is accepted, one sentence.
        expression: CEL expression that makes the sentence, where the values help; `sentence` is the same in Python.
        sentence: see `expression`.
    """

    id: str
    scope: str
    field: str
    reads: tuple[str, ...]
    cel: str
    check: Callable[[Object], bool]
    message: str
    expression: str = ""
    sentence: Callable[[Object], str] | None = None

    @property
    def path(self) -> str:
        """Path of the field that the sentence is about."""
        return ".".join(part for part in (self.scope, self.field) if part)

    def say(self, value: Object) -> str:
        """The sentence for a `self` that breaks the rule."""
        return self.sentence(value) if self.sentence else self.message


@dataclass(frozen=True)
class Fixed:
    """A field that fixes the run's identity: it can't change once the job exists. Path below `spec`."""

    field: str
    why: str
    always: bool = True  # required, or has a default: it is always there

    @property
    def id(self) -> str:
        """Short name, for tests and documents."""
        return f"fixed-{self.field}"

    @property
    def path(self) -> str:
        """Path of the field."""
        return f"spec.{self.field}"

    @property
    def cel(self) -> str:
        """The rule over `self` and `oldSelf`, the new and the old spec; an absent field equals an absent one."""
        new, old = f"self.{self.field}", f"oldSelf.{self.field}"
        if self.always:
            return f"{new} == {old}"
        return f"has({new}) == has({old}) && (!has({new}) || {new} == {old})"

    @property
    def message(self) -> str:
        """The sentence."""
        return (
            f"can't be changed, because {self.why}; delete the job and create it anew, "
            "or create another one with run.resumeFrom"
        )

    def holds(self, new: Object, old: Object) -> bool:
        """Whether the field is the same in both specs."""
        return bool(value_of(new, self.field) == value_of(old, self.field))


def value_of(value: Any, path: str) -> Any:
    """What stands at a dotted path below a mapping; None if nothing does."""
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def cel_list(items: list[str]) -> str:
    """A CEL list of strings."""
    return "[" + ", ".join(f"'{item}'" for item in items) + "]"
