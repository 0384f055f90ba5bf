"""`trainmaster tune extend`: more trials or hours for a search, in its file or in the cluster."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainmaster_api.reasons import ConditionType
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.tuning.budget import Limit, hours_limit, trials_limit
from trainmaster_api.tuning.plan import is_population, plan_of, total_trials
from trainmaster_api.validation.validate import format_problems, validate
from trainmaster_api.validation.yaml_reader import validate_text

from trainmaster_cli.errors import UserError

from .edit import NoPlaceError, with_limit
from .searches import found_of_file, search_of_file, search_of_object

if TYPE_CHECKING:
    from trainmaster_cli.cluster.api import Api

Object = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What a search shall have in all.

    Attributes:
        trials: Trials; None: as many as it has.
        hours: Hours; None: as many as it has.
    """

    trials: int | None = None
    hours: float | None = None

    def __str__(self) -> str:
        """Return it as options."""
        trials = [f"--trials {self.trials}"] if self.trials is not None else []
        return " ".join([*trials, *([f"--hours {self.hours:g}"] if self.hours is not None else [])])


@dataclass(frozen=True)
class Begun:
    """What a search has done so far.

    Attributes:
        trials: How many trials were begun.
        why: Why it is over; empty: it isn't.
        is_early: Whether it is over although there could be more trials.
        is_out_of_hours: Whether it is over because its hours are used.
    """

    trials: int
    why: str = ""
    is_early: bool = False
    is_out_of_hours: bool = False


@dataclass(frozen=True)
class Change:
    """A limit that is raised.

    Attributes:
        limit: The new one.
        before: What it was.
    """

    limit: Limit
    before: str

    def __str__(self) -> str:
        """Return which field changes from which value to which."""
        return f"{self.limit.path} {self.before} -> {self.limit.value}"


def require_more(job: TrainingJob, wanted: Wanted, begun: Begun) -> list[Change]:
    """Return what has to change for a search to have more trials, more hours or both.

    Args:
        job: Its job.
        wanted: What it shall have.
        begun: What it has done so far.

    Raises:
        UserError: It isn't more, or more can't be run.
    """
    found = [_more_trials(job, wanted.trials, begun)] if wanted.trials is not None else []
    found += [_more_hours(job, wanted.hours)] if wanted.hours is not None else []
    if not found:
        raise UserError("pass --trials, --hours or both: how many there shall be in all")
    name = job.metadata.name
    is_cut = begun.is_early or begun.is_out_of_hours
    if is_cut and not (begun.is_out_of_hours and wanted.hours is not None):
        own, more = ("the number of its trials", "trials") if wanted.hours is None else ("its hours", "hours")
        hint = "; pass --hours too" if begun.is_out_of_hours else ""
        raise UserError(
            f"the search of {name} is over for another reason than {own}: {begun.why}; more {more} would not be "
            f"run{hint}"
        )
    if begun.why and not is_cut and wanted.trials is None:
        raise UserError(f"the search of {name} is over: {begun.why}; hours alone don't continue it: pass --trials too")
    return found


def _more_trials(job: TrainingJob, trials: int, begun: Begun) -> Change:
    tuning, name = job.spec.tuning, job.metadata.name
    assert tuning is not None
    plan, short = plan_of(job.spec), job.spec.hyperparameter_search
    if is_population(tuning):
        raise UserError(
            f"{name} has a population of {plan.trials} trials, which train side by side: its number can't change; "
            "start another search under another metadata.name"
        )
    if short is not None and short.limits[1] is not None:
        raise UserError(
            f"the search of {name} ends after {short.budget}, and not after a number of trials: use --hours"
        )
    if trials < begun.trials:
        raise UserError(
            f"--trials {trials} is fewer than the {begun.trials} trials of {name} that were begun, and what was begun "
            "stays: pass a larger number"
        )
    if trials <= plan.trials:
        raise UserError(f"{name} has {plan.trials} trials already: pass a number above that with --trials")
    points = plan.points if tuning.search.algorithm == "grid" else None
    budget = tuning.budget.model_copy(update={"max_trials": trials})
    if total_trials(tuning.model_copy(update={"budget": budget}), points) < trials:
        raise UserError(f"the grid of {name} has {points} points, so there can't be {trials} trials: widen the space")
    return Change(trials_limit(job.spec, trials), str(plan.trials))


def _more_hours(job: TrainingJob, hours: float) -> Change:
    assert job.spec.tuning is not None
    before, name = job.spec.tuning.budget.max_hours, job.metadata.name
    if before is None:
        raise UserError(f"the search of {name} has no limit of hours that could be raised: use --trials")
    if hours <= before:
        raise UserError(f"{name} has {before:g} hours already: pass a number above that with --hours")
    return Change(hours_limit(job.spec, hours), str(hours_limit(job.spec, before).value))


def extend_file(file: str, wanted: Wanted, storage: str | None) -> int:
    """Set the limits of a search in a file, and say how it is continued.

    Raises:
        UserError: It can't be extended.
        Invalid: The file holds no valid job.
    """
    job = search_of_file(file, "tune extend")
    last, found = found_of_file(file, job, storage)
    if last is not None and last.changes:
        lines = "\n".join(last.changes)
        raise UserError(f"{lines}\nonly the search of an unchanged file can be extended: take the changes back")
    begun = (
        Begun(len(found.trials), found.why, found.ended_early, found.is_out_of_hours) if found is not None else Begun(0)
    )
    changes = require_more(job, wanted, begun)
    path = Path(file).resolve()
    text = path.read_bytes().decode()
    for change in changes:
        try:
            text = with_limit(text, change.limit)
        except NoPlaceError:
            words = "can't be set without changing something else; set it yourself"
            raise UserError(f"{file}: {change.limit.path} {words}") from None
    ((valid, problems),) = validate_text(text)
    if valid is None:
        raise UserError(f"with {wanted}:\n{format_problems(problems, file)}")
    _replace(path, text)
    where = f" --storage {shlex.quote(storage)}" if storage else ""
    print(f"{file}: {', '.join(map(str, changes))}; {begun.trials} trials were begun")
    print(f"continue with: trainmaster run {shlex.quote(file)}{where}")
    return 0


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    try:
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            file.write(text.encode())
        try:
            shutil.copymode(path, file.name)
            os.replace(file.name, path)  # noqa: PTH105 - the temporary file has a name, and no path
        except OSError:
            Path(file.name).unlink()
            raise
    except OSError as error:
        raise UserError(f"{path} can't be written: {(error.strerror or str(error)).lower()}") from None


def extend_job(api: Api, name: str, wanted: Wanted) -> int:
    """Set the limits of the search of a job in the cluster.

    Raises:
        UserError: It can't be extended.
    """
    from trainmaster_cli.cluster.api import jobs_path
    from trainmaster_cli.cluster.jobs import get_job, holds, status_of

    raw = get_job(api, name)
    job = search_of_object(raw)
    if holds(raw, ConditionType.FAILED):
        raise UserError(
            f"{name} has failed, and a failed job stays failed: submit it again; `trainmaster why {name}` says why"
        )
    counts = status_of(raw).get("tuning") or {}
    begun = sum(int(counts.get(each, 0)) for each in ("running", "complete", "pruned", "failed"))
    changes, patch = require_more(job, wanted, Begun(begun)), dict[str, Any]()
    for change in changes:
        patch = _merged(patch, change.limit.patch())
    valid, problems = validate(_merged(raw, patch))
    if valid is None:
        raise UserError(f"with {wanted}: {format_problems(problems)}")
    api.patch(f"{jobs_path(api.namespace)}/{name}", patch)
    print(f"{name}: {', '.join(map(str, changes))}; {begun} trials were begun")
    print(_next(raw, name, api.namespace))
    return 0


def _merged(document: Object, patch: Object) -> Object:
    """Return a document with a merge patch in it."""
    found = dict(document)
    for key, value in patch.items():
        found[key] = _merged(found.get(key) or {}, value) if isinstance(value, dict) else value
    return found


def _next(raw: Object, name: str, namespace: str) -> str:
    from trainmaster_cli.cluster.jobs import holds

    if holds(raw, ConditionType.SUSPENDED):
        return f"it continues with them once it is resumed: trainmaster resume {name} -n {namespace}"
    return f"see them with: trainmaster status {name} -n {namespace} --watch"
