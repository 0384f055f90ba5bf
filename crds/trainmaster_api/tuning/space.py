"""The axes of a search: which values of which type are tried where."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trainmaster_api.spec.job import SEARCHES, Spec, TrainingJob
from trainmaster_api.spec.parameter import Parameter
from trainmaster_api.spec.training import Training
from trainmaster_api.validation.fields import fields_of, locate

TRAINING = "spec.training"
OWN_ARGUMENTS = {
    "recipe": "recipe.args",
    "script": "script.parameters",
    "lightning": "lightning.module.args",
    "transformers": "transformers.arguments",
    "model": "model.args",
}
"""Section of the training -> where a name goes that isn't a field."""
_DATAMODULE_ARGUMENTS = "lightning.datamodule.args"
_ONLY_ITS_OWN = ("script", "lightning")
"""Sections beside which no other one says anything: a name such as `optimizer` is free there."""
_NO_PARTS = {"args", "parameters", "arguments", "config", "trainer"}
"""What is below them is the user's own: a `name` there doesn't decide about its neighbours."""
CHANGEABLE = (
    "optimizer.lr",
    "optimizer.weightDecay",
    "optimizer.args",
    "loop.clipNorm",
    "model.args.dropout",
    "data.images.augment",
)
"""Fields, and what is below them, that may change while a model is trained: neither its shape nor the order of rows."""
_TYPES = {"integer": "int", "number": "float"}
Kind = Literal["int", "float", "choice", "constant"]


@dataclass(frozen=True)
class Axis:
    """What is tried for one parameter.

    Attributes:
        name: As the user wrote it.
        path: Dotted path below `spec.training`.
        kind: A range of whole or of decimal numbers, a choice among values, or one value.
        low: Smallest number of a range.
        high: Largest number of a range, included.
        step: Distance of its numbers; None: 1 for whole numbers, any for others.
        is_log: Whether orders of magnitude are equally likely.
        values: Values of a choice; of a constant, the only one.
        when: Parameter -> values under which this one exists.
    """

    name: str
    path: str
    kind: Kind
    low: float = 0
    high: float = 0
    step: float | None = None
    is_log: bool = False
    values: tuple[Any, ...] = ()
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def count(self) -> float:
        """Return how many values it has; infinite for a range of decimal numbers without a step."""
        if self.kind in ("choice", "constant"):
            return len(self.values)
        step = self.spacing
        return math.inf if step is None else math.floor((self.high - self.low) / step + 1e-9) + 1

    @property
    def spacing(self) -> float | None:
        """Distance of the numbers of a range; None: any number of it is on the axis."""
        return self.step or (1 if self.kind == "int" else None)

    def grid(self) -> list[Any]:
        """Return all values, in order. Of an axis with a finite count."""
        if self.kind in ("choice", "constant"):
            return list(self.values)
        numbers = [self.low + index * (self.spacing or 1) for index in range(int(self.count))]
        return [round(number) for number in numbers] if self.kind == "int" else [float(number) for number in numbers]

    def has(self, value: Any) -> bool:
        """Return whether a value is on the axis."""
        if self.kind in ("choice", "constant"):
            return value in self.values
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.kind == "int" and value != int(value):
            return False
        return self.low <= value <= self.high

    def exists(self, values: Mapping[str, Any]) -> bool:
        """Return whether the conditions hold of the other parameters' values."""
        return all(name in values and values[name] in accepted for name, accepted in self.when.items())


class NoPlaceError(ValueError):
    """A parameter can't be put anywhere in this job; the message is a clause."""


def axes_of(spec: Spec) -> list[Axis]:
    """Return the axes of a job's search, those first on which others depend. Raises NoPlaceError."""
    tuning = spec.tuning
    if tuning is None:
        return []
    found = {name: axis(spec.training, name, tuning.space) for name in tuning.space}
    return [found[name] for name in in_order(tuning.space)]


def in_order(space: Mapping[str, Parameter]) -> list[str]:
    """Return the names of the parameters, each after those that it depends on.

    Raises:
        NoPlaceError: Conditions depend on each other.
    """
    done: dict[str, None] = {}
    while len(done) < len(space):
        ready = [name for name, each in space.items() if name not in done and set(each.when) & set(space) <= set(done)]
        if not ready:
            circle = ", ".join(name for name in space if name not in done)
            raise NoPlaceError(f"`when` of {circle} depend on each other")
        done |= dict.fromkeys(ready)
    return list(done)


def axis(training: Training, name: str, space: Mapping[str, Parameter]) -> Axis:
    """Return the axis of one parameter of a space. Raises NoPlaceError."""
    parameter = space[name]
    path = place_of(training, name)
    field_type = type_at(_where_it_exists(training, parameter, space), path)
    when = {other: tuple(accepted) for other, accepted in parameter.when.items()}
    if parameter.values is not None:
        return Axis(name, path, "choice", values=tuple(parameter.values), when=when)
    if parameter.min is None or parameter.max is None:
        return Axis(name, path, "constant", values=(parameter.value,), when=when)
    kind = kind_of(parameter, path, field_type)
    return Axis(
        name, path, kind, parameter.min, parameter.max, parameter.step, parameter.scale == "log", when=when
    )  # fmt: skip


def place_of(training: Training, name: str) -> str:
    """Return the path below `spec.training` of a parameter.

    Raises:
        NoPlaceError: It is no field, and there is no code of the user's own that could take it.
    """
    if _is_path(training, name):
        return name
    section = next(each for each in OWN_ARGUMENTS if each == "model" or getattr(training, each) is not None)
    model, lightning = training.model_or_none, training.lightning
    if lightning is not None and lightning.datamodule is not None:
        first = name.partition(".")[0]
        if first in lightning.datamodule.args and first not in lightning.module.args:
            return f"{_DATAMODULE_ARGUMENTS}.{name}"
    if section == "model" and (model is None or model.reference is None):
        raise NoPlaceError(
            "is no field of spec.training, and there is no code of your own that could take it as an argument; "
            "write the path of a field, such as optimizer.lr or model.args.depth"
        )
    return f"{OWN_ARGUMENTS[section]}.{name}"


def _is_path(training: Training, name: str) -> bool:
    """Return whether a name is the path of a field of `spec.training`."""
    first = name.partition(".")[0]
    only = next((each for each in _ONLY_ITS_OWN if getattr(training, each) is not None), None)
    return first == only if only is not None else first in fields_of(Training)


def is_changeable(training: Training, path: str) -> bool:
    """Return whether a field may change while a model is trained; of arguments of the user's own code, they know."""
    model = training.model_or_none
    own = [OWN_ARGUMENTS["recipe"]] if training.recipe is not None else []
    own += [OWN_ARGUMENTS["model"]] if model is not None and model.reference is not None else []
    return any(path == each or path.startswith(f"{each}.") for each in (*CHANGEABLE, *own))


def kind_of(parameter: Parameter, path: str, field_type: str | None) -> Literal["int", "float"]:
    """Return the type of a range's numbers: declared, that of the field, or that of its numbers.

    Args:
        parameter: A range.
        path: Its place.
        field_type: What the field's schema says; None: it takes anything.

    Raises:
        NoPlaceError: The field takes no numbers, or only the user knows: Kubernetes stores 1.0 as 1.
    """
    if field_type is not None and field_type not in _TYPES:
        raise NoPlaceError(f"is a range, but {TRAINING}.{path} takes no number; list `values`")
    declared = parameter.type or (_TYPES[field_type] if field_type else None)
    if declared == "float" and field_type == "integer":
        raise NoPlaceError(f"has type float, but {TRAINING}.{path} takes whole numbers")
    numbers = [each for each in (parameter.min, parameter.max, parameter.step) if each is not None]
    are_whole = all(float(each).is_integer() for each in numbers)
    if declared == "int" and not are_whole:
        raise NoPlaceError("takes whole numbers: min, max and step must be whole")
    if declared is not None:
        return "int" if declared == "int" else "float"
    is_written_as_float = any(isinstance(each, float) for each in numbers)
    if are_whole and (is_written_as_float or numbers[1] - numbers[0] <= 1):
        raise NoPlaceError(
            "may be whole or decimal numbers, as Kubernetes stores 1.0 as 1: add `type: int` or `type: float`"
        )
    return "int" if are_whole else "float"


def _where_it_exists(training: Training, parameter: Parameter, space: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return a training under which a conditional parameter exists: names decide which arguments there are."""
    found, todo, seen = training.wire(), dict(parameter.when), set[str]()
    values: dict[str, Any] = {}
    while todo:
        name, accepted = todo.popitem()
        if name in space and name not in seen and accepted:
            seen.add(name)
            values[name] = accepted[0]
            todo |= space[name].when
    return _assign(found, {name: value for name, value in values.items() if _is_path(training, name)})


def type_at(training: dict[str, Any], path: str) -> str | None:
    """Return the type of a field's schema; None where it takes anything.

    Raises:
        NoPlaceError: There is no such field.
    """
    steps = ("spec", "training", *path.split("."))
    document = {"spec": {"training": training}}
    node = locate(document, steps).node
    if node is not None:
        found = node.get("type")
        return None if found is None else str(found)
    above = (locate(document, steps[:end]).node for end in range(len(steps) - 1, 1, -1))
    nearest = next((each for each in above if each is not None), {})
    if not nearest.get("x-kubernetes-preserve-unknown-fields"):  # arguments of code that isn't ours take anything
        raise NoPlaceError(f"there is no field {TRAINING}.{path}")
    return None


def assign(document: dict[str, Any], axes: list[Axis], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a job's document with the values of a trial at their places.

    A part whose name changes keeps nothing of the other name: its arguments and settings are the new one's defaults,
    unless they are parameters too.

    Args:
        document: Of the job, as `TrainingJob.wire` gives it.
        axes: Of the search.
        values: By name of the parameter.
    """
    placed = {each.path: values[each.name] for each in axes if each.name in values}
    training = _assign(document["spec"]["training"], placed)
    return {**document, "spec": {**document["spec"], "training": training}}


def _assign(training: dict[str, Any], placed: Mapping[str, Any]) -> dict[str, Any]:
    # names before what depends on them
    for path, value in sorted(placed.items(), key=lambda item: (item[0].count("."), not _is_name(item[0]), item[0])):
        training = _put(training, path.split("."), value, is_name=_is_name(path))
    return training


def _is_name(path: str) -> bool:
    *above, last = path.split(".")
    return last in ("name", "class") and not _NO_PARTS & set(above)


def _put(node: dict[str, Any], steps: list[str], value: Any, *, is_name: bool) -> dict[str, Any]:
    first, *rest = steps
    if rest:
        below = node.get(first)
        return {**node, first: _put(below if isinstance(below, dict) else {}, rest, value, is_name=is_name)}
    if is_name and node.get(first) != value:
        return {first: value}
    return {**node, first: value}


def trial_document(job: TrainingJob, axes: list[Axis], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a trial: the job without its search, with other values and a trial's workers."""
    document = assign(job.wire(), axes, values)
    tuning = job.spec.tuning
    spec = {key: value for key, value in document["spec"].items() if key not in (*SEARCHES, "tracking")}
    if tuning is not None:
        cluster = dict(spec.get("cluster", {}))
        cluster["workers"] = {**cluster.get("workers", {}), "count": tuning.trial.workers}
        spec["cluster"] = cluster
    return {**document, "spec": spec}


def final_document(job: TrainingJob, axes: list[Axis], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a job's winner: the job without its search, with other values."""
    document = assign(job.wire(), axes, values)
    return {**document, "spec": {key: value for key, value in document["spec"].items() if key not in SEARCHES}}


def samples(axes: list[Axis]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield complete assignments in which each parameter takes each of its bounds or values once.

    Yields:
        Name of the parameter, which of its values (`min`, `max`, `values[3]`, `value`), and all parameters' values.
    """
    by_name = {each.name: each for each in axes}
    for each in axes:
        for place, value in _bounds(each):
            forced = {each.name: value} | _needed(each, by_name)
            values: dict[str, Any] = {}
            for other in axes:
                if other.name in forced:
                    values[other.name] = forced[other.name]
                elif other.exists(values):
                    values[other.name] = _bounds(other)[0][1]
            yield each.name, place, values


def _needed(each: Axis, axes: Mapping[str, Axis]) -> dict[str, Any]:
    """Return values of other parameters under which a parameter exists."""
    found: dict[str, Any] = {}
    for name, accepted in each.when.items():
        if name in axes:
            found |= {name: accepted[0]} | _needed(axes[name], axes)
    return found


_MOST_SAMPLES = 16


def _bounds(each: Axis) -> list[tuple[str, Any]]:
    if each.kind == "constant":
        return [("value", each.values[0])]
    if each.kind == "choice":
        return [(f"values[{index}]", value) for index, value in enumerate(each.values[:_MOST_SAMPLES])]
    number = int if each.kind == "int" else float
    return [("min", number(each.low)), ("max", number(each.high))]
