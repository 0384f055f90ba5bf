"""The commands of `trainmaster tune`: they read, and print what the pure parts make of it."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from trainmaster_api.tuning.expression import ExpressionError

from trainmaster_cli.errors import UserError

from . import trials as shown
from .searches import Invalid, Searched, is_file, require_file, require_name, search_of_file, searched

if TYPE_CHECKING:
    from trainmaster_trainer.tuning.trials import TrialRecord

    from trainmaster_cli.cluster.api import Api

BAD_INPUT = 2


def plan(options: argparse.Namespace, api: Api | None = None) -> int:
    """Show what the search of a file will do."""
    from .plan import plan_lines

    job = search_of_file(options.file, "tune plan", imports=True)
    try:
        lines = plan_lines(job)
    except ExpressionError as error:
        raise UserError(f"{options.file}: spec.tuning.constraints: {error}") from None
    print(*lines, sep="\n")
    return 0


def trials(options: argparse.Namespace, api: Api | None = None) -> int:
    """List the trials of a search."""
    search = _search(options, api)
    name, tuning = search.job.metadata.name, search.tuning
    listed = shown.in_order(search.found.trials, tuning, options.sort)
    if options.json:
        print(shown.as_json(search.found, tuning, listed, name))
        return 0
    print(*shown.table(listed, tuning), sep="\n")
    print(f"\n{shown.summary(search.found, name)}")
    best = next((each for each in listed if each.number == search.found.best), None)
    if best is not None:
        print(f"best: {shown.in_words(best, tuning)}; as a job: trainmaster tune best {_again(options)}")
    elif len(tuning.objectives) > 1 and search.found.front:
        print(f"front: {', '.join(map(str, search.found.front))}; as a job: {_choose(options)}")
    return 0


def best(options: argparse.Namespace, api: Api | None = None) -> int:
    """Print the job of the winner, or of another trial."""
    from .best import as_yaml, job_of_trial

    search = _search(options, api)
    tuning, found = search.tuning, search.found
    number = options.trial if options.trial is not None else found.best
    if number is None and len(tuning.objectives) > 1:
        return _say_front(search, options)
    if number is None:
        raise UserError(f"no trial is complete yet; {shown.summary(found, search.job.metadata.name)}")
    trial = next((each for each in found.trials if each.number == number), None)
    if trial is None:
        raise UserError(f"there is no trial {number}; there are 0 to {found.trials[-1].number}")
    suffix = "best" if options.trial is None else f"trial-{number}"
    document = job_of_trial(search.job, search.document, trial.values, suffix)
    if search.changes:
        print(*search.changes, "this job is of the file as it was searched", sep="\n", file=sys.stderr)
    for line in _heading(search, trial):
        print(f"# {' '.join(line.split())}")
    print(as_yaml(document), end="")
    return 0


def extend(options: argparse.Namespace, api: Api | None = None) -> int:
    """Give a search more trials or hours."""
    from .extend import Wanted, extend_file, extend_job

    command, wanted = "tune extend", Wanted(options.trials, options.hours)
    if is_file(options.job):
        require_file(options, command)
        return extend_file(options.job, wanted, options.storage)
    require_name(options, command)
    return extend_job(api or _connect(options), options.job, wanted)


def _heading(search: Searched, trial: TrialRecord) -> list[str]:
    lines = [f"{search.job.metadata.name}, {shown.in_words(trial, search.tuning)}"]
    if str(trial.end) != "Complete":
        lines.append(f"it is not complete: {trial.end or shown.UNFINISHED} after {trial.time} validations")
    if trial.rounds:
        lines.append(
            f"its values changed after each of {len(trial.rounds)} rounds: trained from the start with these, it is "
            f"another model; run.resumeFrom continues from its own weights, {trial.run} in the search's run"
        )
    if not search.found.why:
        lines.append(f"the search isn't over; {shown.summary(search.found, search.job.metadata.name)}")
    return lines


def _say_front(search: Searched, options: argparse.Namespace) -> int:
    """List the front of several objectives, of which only a person can choose one."""
    tuning, front = search.tuning, search.found.front
    if not front:
        raise UserError(f"no trial is complete yet; {shown.summary(search.found, search.job.metadata.name)}")
    listed = [each for each in search.found.trials if each.number in front]
    print(*shown.table(shown.in_order(listed, tuning, "metric"), tuning), sep="\n", file=sys.stderr)
    print(
        f"\nno other trial is better than one of these in every objective; choose: {_choose(options)}", file=sys.stderr
    )
    return BAD_INPUT


def _choose(options: argparse.Namespace) -> str:
    return f"trainmaster tune best {_again(options)} --trial NUMBER"


def _again(options: argparse.Namespace) -> str:
    """Return the job and what was said of its place, for another command."""
    places = (("--storage", options.storage), ("-n", options.namespace), ("--context", options.context))
    return " ".join([shlex.quote(options.job), *(f"{name} {shlex.quote(each)}" for name, each in places if each)])


def _search(options: argparse.Namespace, api: Api | None) -> Searched:
    return searched(options, _connect if api is None else lambda _: api)


def _connect(options: argparse.Namespace) -> Api:
    from trainmaster_cli.cluster.api import connect

    return connect(options.context, options.namespace)


_Command = Callable[[argparse.Namespace, "Api | None"], int]
COMMANDS: dict[str, _Command] = {"plan": plan, "trials": trials, "best": best, "extend": extend}


def run(options: argparse.Namespace, api: Api | None = None) -> int:
    """Execute a command; an invalid file has been printed."""
    try:
        return COMMANDS[options.subcommand](options, api)
    except Invalid:
        return BAD_INPUT
