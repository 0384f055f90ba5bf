"""Statements that the API server checks too. Each is declared once; its CEL and its Python are both made from that.

The CRD has nothing but these, the structure and bounds of the models, and `EXACTLY_ONE`: what needs knowledge of a data
set or of a name that we ship is in `checks.py`. A test runs examples of each constraint against Python and against a
real API server and compares what they say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from trainmaster_api.reasons import Reason
from trainmaster_api.spec.loop import Loop
from trainmaster_api.spec.shorthand import HyperparameterSearch
from trainmaster_api.spec.training import Training
from trainmaster_api.spec.tuning import CHANGEABLE, Tuning
from trainmaster_api.types import DURATION_PATTERN, MAX_NAME_LENGTH, NAME_PATTERN, Model, parse_count

from .fields import fields_of

Object = dict[str, Any]

NAME_MESSAGE = (
    "must start with a letter, contain only lower-case letters, digits and '-', end with a letter or "
    f"digit, and be at most {MAX_NAME_LENGTH} characters long, because the names of the job's pods start with it"
)
NAME_CEL = f"self.metadata.name.size() <= {MAX_NAME_LENGTH} && self.metadata.name.matches('{NAME_PATTERN}')"


# Kubernetes declares fields with these names to CEL as `__name__`; it accepts them unescaped, but then the estimate of
# a rule's cost estimate has no bound for them, and the API server rejects the rule.
_RESERVED = frozenset(
    (
        *("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if"),
        *("import", "let", "loop", "package", "namespace", "return"),
    )
)


def cel_path(path: str) -> str:
    """Return a dotted path as CEL reads it: reserved words are escaped."""
    return ".".join(f"__{step}__" if step in _RESERVED else step for step in path.split("."))


@dataclass(frozen=True)
class SumsToOne:
    """The shares in an object add up to 1.

    Attributes:
        scope: Dotted path of the object that is looked at, after defaults.
        field: Dotted path below `scope` that the message is about; here: the object with the shares.
        shares: Its fields.
        expression: CEL expression that produces the message; empty: the message is constant.
    """

    scope: str
    field: str
    shares: tuple[str, ...]
    expression: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        """Return dotted paths below `scope`; the constraint is silent while one of them has a problem of its own."""
        return tuple(f"{self.field}.{share}" for share in self.shares)

    @property
    def cel(self) -> str:
        """Return the CEL; a sum of decimal fractions is only nearly 1."""
        total = " + ".join(f"self.{cel_path(read)}" for read in self.reads)
        return f"{total} > 0.999999 && {total} < 1.000001"

    @property
    def message(self) -> str:
        """Return the message."""
        return f"{', '.join(self.shares[:-1])} and {self.shares[-1]} must add up to 1"

    def holds(self, value: Object) -> bool:
        """Return whether they do, in plain data; an object that isn't there has none."""
        return value is None or 0.999999 < sum(float(value_of(value, read)) for read in self.reads) < 1.000001

    def say(self, value: Object) -> str:
        """Return the message."""
        return self.message


@dataclass(frozen=True)
class MultipleOf:
    """A number is a multiple of the product of two others. `factors`: (word in the message, field).

    `within` is the object below `scope` that has the number; it may be absent.
    """

    scope: str
    field: str
    factors: tuple[tuple[str, str], tuple[str, str]]
    within: str

    @property
    def reads(self) -> tuple[str, ...]:
        """Return the paths of the number and its factors."""
        return (self.field, *(path for _, path in self.factors))

    @property
    def cel(self) -> str:
        """Return the CEL."""
        return f"!has(self.{cel_path(self.within)}) || self.{cel_path(self.field)} % {self._product} == 0"

    @property
    def message(self) -> str:
        """Return the message without values, for the reference."""
        return f"must be a multiple of {' x '.join(word for word, _ in self.factors)}"

    @property
    def expression(self) -> str:
        """Return CEL that produces the message of `say`."""
        words = " x ".join(f"%d {word}" for word, _ in self.factors)
        numbers = ", ".join(f"self.{cel_path(path)}" for _, path in self.factors)
        up = f"(self.{cel_path(self.field)} / {self._product} + 1) * {self._product}"
        return f"'is not a multiple of {words}; next is %d'.format([{numbers}, {up}])"

    def holds(self, value: Object) -> bool:
        """Return whether it is, or isn't there."""
        number = value_of(value, self.field)
        return number is None or bool(number % self._parts(value) == 0)

    def say(self, value: Object) -> str:
        """Return the message, with the factors and the next valid number."""
        words = " x ".join(f"{value_of(value, path)} {word}" for word, path in self.factors)
        parts = self._parts(value)
        return f"is not a multiple of {words}; next is {(value_of(value, self.field) // parts + 1) * parts}"

    @property
    def _product(self) -> str:
        return "(" + " * ".join(f"self.{cel_path(path)}" for _, path in self.factors) + ")"

    def _parts(self, value: Object) -> int:
        first, second = (int(value_of(value, path)) for _, path in self.factors)
        return first * second


@dataclass(frozen=True)
class NotBoth:
    """Of two objects, at most one is there: one is short for the other.

    Attributes:
        scope: Dotted path of the object that is looked at, after defaults.
        field: The short one, below `scope`.
        other: What it is short for.
    """

    scope: str
    field: str
    other: str
    expression = ""

    @property
    def reads(self) -> tuple[str, ...]:
        """Return the paths of both."""
        return (self.field, self.other)

    @property
    def cel(self) -> str:
        """Return the CEL."""
        return f"!has(self.{cel_path(self.field)}) || !has(self.{cel_path(self.other)})"

    @property
    def message(self) -> str:
        """Return the message."""
        return f"is short for `{self.other}`, which is there too: remove one of them"

    def holds(self, value: Object) -> bool:
        """Return whether one of them isn't there."""
        return value_of(value, self.field) is None or value_of(value, self.other) is None

    def say(self, value: Object) -> str:
        """Return the message."""
        return self.message


Constraint = SumsToOne | MultipleOf | NotBoth
CONSTRAINTS: tuple[Constraint, ...] = (
    SumsToOne("spec.training.data", "split", ("train", "validation", "test")),
    *(
        MultipleOf(
            "spec",
            f"training.{within}.batchSize",
            (("workers", "cluster.workers.count"), ("gradientAccumulation", "training.loop.gradientAccumulation")),
            within=f"training.{within}",
        )
        for within in ("data", "recipe")
    ),
    NotBoth("spec", "hyperparameterSearch", "tuning"),
)


@dataclass(frozen=True)
class Fixed:
    """A field that fixes the run's identity: it can't change once the job exists.

    Attributes:
        field: Dotted path below `spec`.
        why: Reason, for the message.
        parts: Fields below `field` that are compared, each with whether it is optional; empty: the field itself.
        always: Whether the field is required or has a default, and so is always there.
    """

    field: str
    why: str
    parts: tuple[tuple[str, bool], ...] = ()
    always: bool = True

    @property
    def cel(self) -> str:
        """Return the CEL over `self` and `oldSelf`, the new and the old job; an absent field equals an absent one."""
        compared = [(f"{self.field}.{part}", not optional) for part, optional in self.parts]
        return " && ".join(_same(path, always=always) for path, always in compared or [(self.field, self.always)])

    @property
    def message(self) -> str:
        """Return the message."""
        return (
            f"is immutable, because {self.why}; delete the job and create it again, "
            "or create another one with run.resumeFrom"
        )

    def holds(self, new: Object, old: Object) -> bool:
        """Return whether the field is the same in both specs, plain data after defaults."""
        paths = [f"{self.field}.{part}" for part, _ in self.parts] or [self.field]
        return all(value_of(new, path) == value_of(old, path) for path in paths)


@dataclass(frozen=True)
class FixedBut:
    """An object that may be absent, and that can't change except for some of its fields.

    Attributes:
        field: Dotted path below `spec`.
        why: Reason, for the message.
        parts: Fields below `field` that are compared, each with whether it may be absent.
    """

    field: str
    why: str
    parts: tuple[tuple[str, bool], ...]

    @property
    def cel(self) -> str:
        """Return the CEL over `self` and `oldSelf`."""
        new, old = (f"{job}.spec.{cel_path(self.field)}" for job in ("self", "oldSelf"))
        same = " && ".join(_same(f"{self.field}.{part}", always=not optional) for part, optional in self.parts)
        return f"has({new}) == has({old}) && (!has({new}) || ({same}))"

    @property
    def message(self) -> str:
        """Return the message."""
        return Fixed(self.field, self.why).message

    def holds(self, new: Object, old: Object) -> bool:
        """Return whether it is the same in both specs, plain data after defaults."""
        if (value_of(new, self.field) is None) != (value_of(old, self.field) is None):
            return False
        paths = [f"{self.field}.{part}" for part, _ in self.parts]
        return all(value_of(new, path) == value_of(old, path) for path in paths)


@dataclass(frozen=True)
class Grows:
    """A duration that can be raised, in its unit, and not lowered."""

    field: str
    message: str = "may only be raised, in the same unit, because the checkpoints of this run belong to it"

    @property
    def cel(self) -> str:
        """Return the CEL. Numbers without leading zeros compare by length, then as text: int() costs too much there."""
        new, old = (f"{job}.spec.{cel_path(self.field)}" for job in ("self", "oldSelf"))
        return (
            f"{new}.endsWith('step') == {old}.endsWith('step') && "
            f"({new}.size() > {old}.size() || ({new}.size() == {old}.size() && {new} >= {old}))"
        )

    def holds(self, new: Object, old: Object) -> bool:
        """Return whether it hasn't shrunk; what isn't a duration is a problem of its own."""
        after, before = value_of(new, self.field), value_of(old, self.field)
        if not all(isinstance(value, str) and re.fullmatch(DURATION_PATTERN, value) for value in (after, before)):
            return bool(after == before)
        (count, unit), (least, unit_before) = parse_count(after), parse_count(before)
        return unit == unit_before and count >= least


def _training_parts() -> tuple[tuple[str, bool], ...]:
    """Return everything of the training but the duration of its loop."""
    parts = [(key, info.default is None) for key, info in fields_of(Training).items() if key != "loop"]
    loop = [(f"loop.{key}", info.default is None) for key, info in fields_of(Loop).items() if key != "duration"]
    return (*parts, *loop)


_CHANGEABLE = " and ".join(f"`{key}`" for key in CHANGEABLE)


def _search_parts(search: type[Model]) -> tuple[tuple[str, bool], ...]:
    """Return everything of a search but what may be changed once it has begun."""
    return tuple((key, info.default is None) for key, info in fields_of(search).items() if key not in CHANGEABLE)


# A run is what its checkpoints belong to: the data and the model that they continue, where they are stored, the metric
# that chose BEST, and the ranks and devices that exact resume needs. The image is the code that computes it.
# Resources, placement, retries, deadlines and how often to save only say how the run is carried out: they may change,
# and a run may be made longer.
TRANSITIONS: tuple[Fixed | FixedBut | Grows, ...] = (
    Fixed("training", "the checkpoints of this run belong to it", parts=_training_parts()),
    Grows("training.loop.duration"),
    FixedBut(
        "tuning", f"the trials of this search belong to it, except for {_CHANGEABLE}", parts=_search_parts(Tuning)
    ),
    FixedBut(
        "hyperparameterSearch",
        "the trials of this search belong to it, except for `budget`",
        parts=_search_parts(HyperparameterSearch),
    ),
    Fixed("storage", "the checkpoints of this run are stored there"),
    Fixed("checkpoint.metric", "the best checkpoint so far was selected by it"),
    Fixed("cluster.image", "this code determines what the run computes", always=False),
    Fixed("cluster.workers.count", "a checkpoint must be resumed by as many workers as wrote it"),
    Fixed("cluster.workers.gpus", "a run must stay on the kind of device that it started on"),
    Fixed("run.resumeFrom", "the run started from there", always=False),
)


# A job that was rejected before its first attempt has no run yet: every field may be corrected.
NOT_BEGUN_CEL = (
    f"(has(oldSelf.status) && has(oldSelf.status.reason) && oldSelf.status.reason == '{Reason.INVALID_SPEC}' && "
    "(!has(oldSelf.status.attempt) || oldSelf.status.attempt == 0))"
)


def has_not_begun(job: Any) -> bool:
    """Return whether a job, as stored by the API server, was rejected before its first attempt."""
    return bool(value_of(job, "status.reason") == Reason.INVALID_SPEC and not value_of(job, "status.attempt"))


def value_of(value: Any, path: str) -> Any:
    """Return what is at a dotted path below a mapping; None if nothing is."""
    for step in path.split(".") if path else ():
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _same(path: str, *, always: bool) -> str:
    new, old = (f"{job}.spec.{cel_path(path)}" for job in ("self", "oldSelf"))
    return f"{new} == {old}" if always else f"has({new}) == has({old}) && (!has({new}) || {new} == {old})"
