"""`trainmaster tune extend`: more trials for a search, in its file or in the cluster."""

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
from trainmaster_api.tuning.budget import Limit, trials_limit
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
class Begun:
    """What a search has done so far.

    Attributes:
        trials: How many trials were begun.
        ended_early: Why it is over although there could be more trials; empty: it isn't.
    """

    trials: int
    ended_early: str = ""


def require_more(job: TrainingJob, trials: int, begun: Begun) -> int:
    """Return how many trials the search has now.

    Args:
        job: Its job.
        trials: How many it shall have.
        begun: What it has done so far.

    Raises:
        UserError: These aren't more, or more can't be run.
    """
    tuning, name = job.spec.tuning, job.metadata.name
    assert tuning is not None
    plan = plan_of(job.spec)
    if is_population(tuning):
        raise UserError(
            f"{name} has a population of {plan.trials} trials, which train side by side: its number can't change; "
            "start another search under another metadata.name"
        )
    _require_unit(job)
    if trials < begun.trials:
        raise UserError(
            f"--trials {trials} is fewer than the {begun.trials} trials of {name} that were begun, and what was begun "
            "stays: pass a larger number"
        )
    if trials <= plan.trials:
        raise UserError(f"{name} has {plan.trials} trials already: pass a number above that with --trials")
    points = plan.points if tuning.search.algorithm == "grid" else None
    if total_trials(tuning.model_copy(update={"budget": _budget(job, trials)}), points) < trials:
        raise UserError(f"the grid of {name} has {points} points, so there can't be {trials} trials: widen the space")
    if begun.ended_early:
        raise UserError(
            f"the search of {name} is over for another reason than the number of its trials: {begun.ended_early}; more "
            "trials would not be run"
        )
    return plan.trials


def _require_unit(job: TrainingJob) -> None:
    """Raise UserError if the budget is a time, in whose place a number of trials would be another search."""
    short = job.spec.hyperparameter_search
    if short is not None and short.limits[1] is not None:
        raise UserError(
            f"the search of {job.metadata.name} ends after {short.budget}, and not after a number of trials: raise "
            f"spec.hyperparameterSearch.budget yourself"
        )


def _budget(job: TrainingJob, trials: int) -> Any:
    assert job.spec.tuning is not None
    return job.spec.tuning.budget.model_copy(update={"max_trials": trials})


def extend_file(file: str, trials: int, storage: str | None) -> int:
    """Set the number of trials in a file, and say how the search is continued.

    Raises:
        UserError: It can't be extended.
        Invalid: The file holds no valid job.
    """
    job = search_of_file(file, "tune extend")
    last, found = found_of_file(file, job, storage)
    if last is not None and last.changes:
        lines = "\n".join(last.changes)
        raise UserError(f"{lines}\nonly the search of an unchanged file can be extended: take the changes back")
    begun = Begun(len(found.trials), found.why if found.ended_early else "") if found is not None else Begun(0)
    before = require_more(job, trials, begun)
    path = Path(file).resolve()
    text = path.read_bytes().decode()
    limit = trials_limit(job.spec, trials)
    try:
        changed = with_limit(text, limit)
    except NoPlaceError:
        raise UserError(f"{file}: {limit.path} can't be set without changing something else; set it yourself") from None
    ((valid, problems),) = validate_text(changed)
    if valid is None:
        raise UserError(f"with --trials {trials}:\n{format_problems(problems, file)}")
    _replace(path, changed)
    where = f" --storage {shlex.quote(storage)}" if storage else ""
    print(f"{file}: {limit.path} {before} -> {trials}; {begun.trials} trials were begun")
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


def extend_job(api: Api, name: str, trials: int) -> int:
    """Set the number of trials of a job in the cluster.

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
    before = require_more(job, trials, Begun(begun))
    limit = trials_limit(job.spec, trials)
    _require_valid(raw, limit, trials)
    api.patch(f"{jobs_path(api.namespace)}/{name}", limit.patch())
    print(f"{name}: {limit.path} {before} -> {trials}; {begun} trials were begun")
    print(_next(raw, name, api.namespace))
    return 0


def _require_valid(raw: Object, limit: Limit, trials: int) -> None:
    valid, problems = validate(_merged(raw, limit.patch()))
    if valid is None:
        raise UserError(f"with --trials {trials}: {format_problems(problems)}")


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
