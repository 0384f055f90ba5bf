"""Problems of a search that is written as `hyperparameterSearch`, at the places that its user has written.

Rules look at the `tuning` that it is short for, so that each exists once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from trainmaster_api.spec.job import Spec
from trainmaster_api.spec.parameter import Parameter
from trainmaster_api.spec.shorthand import HyperparameterSearch

from .problem import Problem

TUNING, SHORTHAND = "spec.tuning", "spec.hyperparameterSearch"
_PLACES = {
    "objectives[0].metric": "metric",
    "objectives[0].goal": "goal",
    "search.algorithm": "method",
    "budget": "budget",
    "space": "space",
}
"""Place below `tuning` -> place below the shorthand; of what is below both, too."""
_WORDS = {"use tpe or random": "use bayesian or random"}


def as_written(spec: Spec, problem: Problem) -> Problem:
    """Return a problem of a search where its user can do something about it.

    Args:
        spec: Of the job that has the problem.
        problem: Of any place of the job.
    """
    search = spec.hyperparameter_search
    if search is None or spec.tuning_or_none is not None or not problem.path.startswith(TUNING):
        return problem
    message = problem.message
    for word, own in _WORDS.items():
        message = message.replace(word, own)
    place = problem.path.removeprefix(TUNING).removeprefix(".")
    if place.startswith("space."):
        return _of_parameter(search, replace(problem, message=message), place.removeprefix("space."))
    found = next((own for there, own in _PLACES.items() if place == there or place.startswith(f"{there}.")), "")
    return replace(problem, path=f"{SHORTHAND}.{found}" if found else SHORTHAND, message=message)


def _of_parameter(search: HyperparameterSearch, problem: Problem, place: str) -> Problem:
    space = search.space or {}
    name = max((each for each in space if place == each or place.startswith(f"{each}.")), key=len, default="")
    if not name:  # it is one of the default space, which the user hasn't written
        said = replace(problem, path="", value="", hint="")
        words = f"is required here: the default for {place} makes a trial that is no valid job ({said})"
        return Problem(f"{SHORTHAND}.space", words, hint=problem.hint)
    below = place.removeprefix(name).removeprefix(".")
    path = f"{SHORTHAND}.space.{name}"
    if below and not _has(space[name], below):
        return replace(problem, path=path, value="")
    return replace(problem, path=f"{path}.{below}" if below else path)


def _has(parameter: Parameter, below: str) -> bool:
    """Return whether a parameter as its user wrote it has a place; a range of a grid has become values."""
    first = below.partition("[")[0].partition(".")[0]
    return bool(parameter.when) if first == "when" else getattr(parameter, first, None) is not None


def with_search(bad: Iterable[str]) -> list[str]:
    """Return paths that have problems, with the search that follows from a shorthand among them."""
    found = list(bad)
    is_bad = any(each == SHORTHAND or each.startswith((f"{SHORTHAND}.", f"{SHORTHAND}[")) for each in found)
    return [*found, TUNING] if is_bad else found
