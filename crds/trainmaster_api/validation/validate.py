"""Validation of a TrainingJob: every problem at once, in the words that the API server's rules use too.

The command line, the admission webhook and the operator's `Accepted` condition all call `validate`.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from trainmaster_api import API_VERSION, KIND
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.training import Training
from trainmaster_api.types import EXACTLY_ONE_WORDS

from .checks import CHECKS
from .constraints import CONSTRAINTS, NAME_MESSAGE, value_of
from .describe import accepted_by
from .fields import Place, drop_nulls, field_paths, fields_of, locate
from .pod_template import cluster_findings
from .problem import Problem, format_problems, shown
from .schema import Schema
from .shorthand import as_written, with_search
from .trial_checks import trial_problems

__all__ = ["Problem", "format_problems", "validate"]

_ABSENT = object()
# What a required field is taken for while something else is looked at: rules are silent about it.
_STAND_IN: dict[str, Any] = {
    "metadata": {"name": "job"},
    "spec": {"training": {}},
}
_PARTS: dict[str, Any] = {
    "task": {"name": "classification"},
    "data": {"source": "sklearn:digits"},
    "model": {"name": "mlp"},
}


def validate(document: Any) -> tuple[TrainingJob | None, list[Problem]]:
    """Check a document that claims to be a TrainingJob.

    Args:
        document: What a YAML or JSON file holds. `status` is left out of it: it is the operator's.

    Returns:
        The job with every default filled in, or None, and all problems; a job is returned exactly if there are none.
        Never raises.
    """
    problems = _no_plain_mapping(document)
    if problems:
        return None, problems
    data, nulls = drop_nulls({key: value for key, value in document.items() if key != "status"}, TrainingJob)
    problems = [*_header_problems(document), *nulls, *_not_finite(data, "")]
    try:
        job = _parse(data)
        partial: TrainingJob | None = job
    except ValidationError as error:
        problems += _translate(error, data)
        job, (partial, removed) = None, _parse_rest(data, error)
        bad = [*removed, *(problem.path for problem in problems)]
    else:
        bad = [problem.path for problem in problems]
    if partial is not None:
        problems += _rule_problems(partial, data, bad)
    problems += [Problem(*found) for found in cluster_findings(data)]
    problems = _distinct(problems)
    if job is not None and job.spec.tuning is not None and not problems:
        problems = _distinct([as_written(job.spec, each) for each in trial_problems(job, validate)])
    return (None, problems) if problems else (job, [])


def _parse(data: Any) -> TrainingJob:
    return TrainingJob.model_validate(data, strict=True, by_alias=True, by_name=False)


def _no_plain_mapping(document: Any) -> list[Problem]:
    if not isinstance(document, dict):
        return [Problem("", f"not a {KIND}, but {_kind_of(document)}", hint=f"see examples/ for a {KIND}")]
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return [Problem("", f"can't be written as JSON: {error}")]
    return []


def _kind_of(value: Any) -> str:
    names = {list: "a list", str: "text", type(None): "nothing", bool: "true or false", int: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")


def _header_problems(data: dict[str, Any]) -> Iterator[Problem]:
    for key, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if data.get(key) != expected:
            value = shown(data[key]) if key in data else ""
            yield Problem(key, "must be" if value else "is missing", value, accepted=expected)


def _not_finite(value: Any, path: str) -> Iterator[Problem]:
    """Yield numbers that JSON doesn't have; arguments are open, so no model rejects them."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{path}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value) and ".args" in path:
        yield Problem(path, "must be a finite number", shown(value))


def _distinct(problems: list[Problem]) -> list[Problem]:
    """Drop a second problem of the same path, and what only follows from another problem."""
    found: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        found.setdefault((problem.path, problem.message), problem)
    empty = {path for path, message in found if message == "is empty"}
    bad = {path for path, _ in found}

    def follows(problem: Problem) -> bool:
        if problem.message == "is required":  # a null was taken out, or the name that would have a default is unknown
            return problem.path in empty or f"{problem.path.rpartition('.')[0]}.name" in bad - {problem.path}
        return problem.message.startswith(EXACTLY_ONE_WORDS) and bool(
            empty & {f"{problem.path}.{key}" for key in ("name", "class", "source", *Training.EXACTLY_ONE)}
        )

    return [problem for problem in found.values() if not follows(problem)]


# --- what pydantic found -------------------------------------------------------------------------------------------


def _translate(error: ValidationError, data: Any) -> Iterator[Problem]:
    for item in error.errors(include_url=False):
        place = locate(data, item["loc"])
        if place.path not in ("apiVersion", "kind"):
            yield _problem(item["type"], place, item["input"], item["msg"])


def _problem(kind: str, place: Place, value: Any, text: str) -> Problem:
    path = place.path
    if kind == "rule":  # a validator of ours
        return Problem(path, text, "" if isinstance(value, dict | list) else shown(value))
    if path == "metadata.name" and kind.startswith("string_") and kind != "string_type":
        return Problem(path, NAME_MESSAGE, shown(value))
    if path.endswith(".[key]"):
        words = "is no name of a parameter: letters, digits, `_` and `.`, such as optimizer.lr"
        return Problem(path.removesuffix(".[key]"), words)
    if kind == "extra_forbidden":
        return _unknown_field(place, value)
    node = place.node or {}
    accepted = accepted_by(node)
    if kind == "missing":
        return Problem(path, "is required", accepted=accepted)
    if not accepted:
        return Problem(path, text[:1].lower() + text[1:], shown(value))
    return Problem(path, "must be", shown(value), accepted, _way_out(value, node))


def _way_out(value: Any, node: Schema) -> str:
    if isinstance(value, bool | int | float) and node.get("type") == "string" and "enum" not in node:
        return "quote it: YAML would parse it as another type" if _fits(str(value), node) else ""
    choices = [choice for choice in node.get("enum", ()) if isinstance(choice, str)]
    near = difflib.get_close_matches(value.lower(), choices, n=1) if isinstance(value, str) else []
    return f"did you mean `{near[0]}`?" if near and len(choices) > 1 else ""


def _fits(text: str, node: Schema) -> bool:
    return re.search(node.get("pattern", ""), text) is not None


def _unknown_field(place: Place, value: Any) -> Problem:
    name = place.path.rpartition(".")[2]
    known = {key.lower(): key for key in fields_of(place.owner)}
    near = difflib.get_close_matches(name.lower().replace("_", ""), known, n=1)
    if near:
        return Problem(place.path, "unknown field", shown(value), hint=f"did you mean `{known[near[0]]}`?")
    hint = _elsewhere(place.path, name)
    accepted = f"known fields are {', '.join(known.values())}" if known else "there are none here"
    return Problem(place.path, "unknown field", shown(value), accepted, hint)


def _elsewhere(path: str, name: str) -> str:
    """Return where a field of this name belongs: below the object that it is in, if it does there."""
    parent = path.rpartition(".")[0]
    named = [other for other in field_paths() if other.rpartition(".")[2].lower() == name.lower()]
    below = [other for other in named if other.startswith(f"{parent}.")]
    found = (below or named)[:1]
    return f"did you mean {found[0]}?" if found else ""


# --- what can still be looked at -----------------------------------------------------------------------------------


def _parse_rest(data: Any, error: ValidationError) -> tuple[TrainingJob | None, list[str]]:
    """Parse what is left without the parts that have problems, so that rules can look at the others.

    Returns:
        The job, and the paths that were taken out of it; a default or a stand-in is there in their place.
    """
    removed: list[str] = []
    for _ in range(16):  # each time something is removed, down to the stand-ins
        for item in error.errors(include_url=False, include_input=False):
            location = item["loc"][:-1] if item["type"] == "missing" else item["loc"]
            data, path = _without(data, location)
            removed += [path, locate(data, item["loc"]).path]
        data = _with_stand_ins(data, _STAND_IN)
        if not {*Training.EXACTLY_ONE} & {*data["spec"]["training"]}:
            data["spec"]["training"] = _with_stand_ins(data["spec"]["training"], _PARTS)
        try:
            return _parse(data), removed
        except ValidationError as again:
            error = again
    return None, removed


def _without(data: Any, location: tuple[int | str, ...]) -> tuple[Any, str]:
    """Return a copy without what is at a location (a list is removed whole), and the path of what was removed."""
    steps = list(location)
    for index, step in enumerate(steps):
        if isinstance(step, int):
            steps = steps[:index]
            break
    while steps and not isinstance(value_of(data, ".".join(map(str, steps[:-1]))), dict):
        steps.pop()
    if not steps:
        return data, ""
    return _cut(data, [str(step) for step in steps]), ".".join(map(str, steps))


def _cut(data: dict[str, Any], steps: list[str]) -> dict[str, Any]:
    first, *rest = steps
    if not rest or not isinstance(data.get(first), dict):
        return {key: value for key, value in data.items() if key != first}
    return {**data, first: _cut(data[first], rest)}


def _with_stand_ins(data: Any, stand_in: dict[str, Any]) -> dict[str, Any]:
    found = dict(data) if isinstance(data, dict) else {}
    for key, value in stand_in.items():
        if key not in found:
            found[key] = value
        elif isinstance(value, dict) and isinstance(found[key], dict) and not {"name", "class", "source"} & set(value):
            found[key] = _with_stand_ins(found[key], value)
    return found


# --- rules ---------------------------------------------------------------------------------------------------------


def _rule_problems(job: TrainingJob, data: dict[str, Any], bad: list[str]) -> Iterator[Problem]:
    plain, bad = job.wire(), with_search(bad)
    for constraint in CONSTRAINTS:
        value = value_of(plain, constraint.scope)
        reads = [f"{constraint.scope}.{read}" for read in constraint.reads]
        if not any(_touches(read, bad) for read in reads) and not constraint.holds(value):
            path = f"{constraint.scope}.{constraint.field}"
            yield Problem(path, constraint.say(value), _value_there(plain, path))
    absent = [f"spec.training.{key}" for key in _PARTS if getattr(job.spec.training, f"{key}_or_none") is None]
    for check in CHECKS:
        lacks = not check.optional and any(_is_within(read, path) for read in check.reads for path in absent)
        if not lacks and not any(_touches(read, bad) for read in check.reads):
            for found in check.find(job.spec):
                problem = as_written(job.spec, found)
                there = _value_there(data, problem.path)
                yield Problem(problem.path, problem.message, there, hint=problem.hint)


def _value_there(data: Any, path: str) -> str:
    there = _value_at(data, path)
    return "" if there is _ABSENT or isinstance(there, dict | list) else shown(there)


def _touches(path: str, bad: list[str]) -> bool:
    """Return whether something at, above or below a path is wrong already."""
    return any(_is_within(path, other) or _is_within(other, path) for other in bad)


def _is_within(path: str, other: str) -> bool:
    return path == other or (path.startswith(other) and path[len(other)] in ".[") or not other


def _value_at(data: Any, path: str) -> Any:
    for step in re.split(r"\.|(?=\[)", path) if path else ():
        if step.startswith("["):
            index = int(step[1:-1])
            data = data[index] if isinstance(data, list) and index < len(data) else _ABSENT
        else:
            data = data.get(step, _ABSENT) if isinstance(data, dict) else _ABSENT
    return data
