"""The commands of `trainmaster tune`: they read, and print what the pure parts make of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.tuning.expression import ExpressionError

from trainmaster_cli.errors import UserError
from trainmaster_cli.files import only_job

BAD_INPUT = 2


def plan(options: argparse.Namespace) -> int:
    """Show what the search of a file will do."""
    from .plan import plan_lines

    job = _search_of(options.file, "tune plan")
    if job is None:
        return BAD_INPUT
    try:
        lines = plan_lines(job)
    except ExpressionError as error:
        raise UserError(f"{options.file}: spec.tuning.constraints: {error}") from None
    print(*lines, sep="\n")
    return 0


def _search_of(file: str, command: str) -> TrainingJob | None:
    """Return the job of a file that has a search; None: it is invalid, which has been printed.

    Raises:
        UserError: It has no search.
    """
    job = only_job(file, command)
    if job is not None and job.spec.tuning is None:
        raise UserError(f"{file}: {job.metadata.name} has no search: add spec.tuning (docs/tuning.md)")
    return job


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "plan": plan,
}
