"""Whether the trials of a search are valid jobs: each bound and each value of a parameter is put into the job once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.tuning.space import TRAINING, Axis, NoPlaceError, axes_of, final_document, samples, trial_document

from .problem import Problem, shown

_MOST_SAMPLES = 256
_MOST_PROBLEMS = 20
Validate = Callable[[Any], tuple[TrainingJob | None, list[Problem]]]


def trial_problems(job: TrainingJob, validate: Validate) -> list[Problem]:
    """Return what is wrong with the trials of a job that is valid itself.

    Args:
        job: The job.
        validate: Checks a document; it is called with documents that have no search.
    """
    try:
        axes = axes_of(job.spec)
    except NoPlaceError:  # a check has said so
        return []
    tuning = job.spec.tuning
    has_final = tuning is not None and tuning.final_run.enabled and len(tuning.objectives) == 1
    found: dict[tuple[str, str], Problem] = {}
    for name, place, values in islice(samples(axes), _MOST_SAMPLES):
        _, problems = validate(trial_document(job, axes, values))
        if not problems and has_final:
            _, problems = validate(final_document(job, axes, values))
        for problem in _said(axes, name, place, values, problems):
            found.setdefault((problem.path, problem.message), problem)
        if len(found) >= _MOST_PROBLEMS:
            break
    return list(found.values())


def _said(
    axes: list[Axis], name: str, place: str, values: dict[str, Any], problems: list[Problem]
) -> Iterator[Problem]:
    """Yield the problems of a trial as problems of the parameter that was changed for it."""
    path = f"spec.tuning.space.{name}.{place}"
    value = shown(values[name])
    own = next(each for each in axes if each.name == name)
    others = [f"{TRAINING}.{each.path}" for each in axes if each is not own]
    for problem in problems:
        if _concerns(problem.path, f"{TRAINING}.{own.path}"):
            yield Problem(path, problem.message, value, problem.accepted, problem.hint)
        elif not any(_concerns(problem.path, other) for other in others):  # else it is said of that one
            given = ", ".join(f"{key} = {shown(each)}" for key, each in values.items())
            yield Problem(path, f"makes a trial that is no valid job: {problem}", value, hint=f"the trial has {given}")


def _concerns(path: str, other: str) -> bool:
    return path == other or path.startswith((f"{other}.", f"{other}["))
