"""Where the search of a job is: in the last run of a file on this machine, or in the storage of a job in a cluster."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.tuning import Tuning
from trainmaster_api.validation.validate import validate
from trainmaster_api.validation.yaml_reader import parse_documents

from trainmaster_cli.errors import UserError
from trainmaster_cli.extras import require_cluster, require_trainer
from trainmaster_cli.files import only_job

if TYPE_CHECKING:
    from trainmaster_trainer.driver.last_search import LastSearch
    from trainmaster_trainer.tuning.stored import Found

    from trainmaster_cli.cluster.api import Api

Object = dict[str, Any]
_SUFFIXES = (".yaml", ".yml", ".json")


class Invalid(Exception):  # noqa: N818 - an answer: it has been printed
    """A file holds no valid job; its problems have been printed."""


@dataclass(frozen=True)
class Searched:
    """The search of a job.

    Attributes:
        job: The job as it was searched.
        document: The job as its user has written it.
        found: What its search has found.
        changes: How the file has changed since, as lines; empty: it hasn't.
    """

    job: TrainingJob
    document: Object
    found: Found
    changes: list[str] = field(default_factory=list)

    @property
    def tuning(self) -> Tuning:
        """What is asked for."""
        assert self.job.spec.tuning is not None
        return self.job.spec.tuning


def is_file(job: str) -> bool:
    """Return whether a job is meant by its file, and not by its name."""
    return "/" in job or job.endswith(_SUFFIXES) or Path(job).is_file()


def searched(options: argparse.Namespace, connect: Callable[[argparse.Namespace], Api]) -> Searched:
    """Return the search of a job.

    Args:
        options: job, storage, namespace, context.
        connect: Returns the API server of the options.

    Raises:
        UserError: There is none, or it can't be read.
        Invalid: The file holds no valid job.
    """
    command = f"tune {options.subcommand}"
    if is_file(options.job):
        require_file(options, command)
        return _of_file(options.job, options.storage, command)
    require_name(options, command)
    return _of_name(connect(options), options.job)


def search_of_file(file: str, command: str, *, imports: bool = False) -> TrainingJob:
    """Return the job of a file, which has a search.

    Args:
        file: Its path; `-`: standard input.
        command: Which asks, for the message.
        imports: Whether the code that it refers to is imported, to check it.

    Raises:
        UserError: It has no search.
        Invalid: It is invalid.
    """
    job = only_job(file, command, imports=imports)
    if job is None:
        raise Invalid
    if job.spec.tuning is None:
        raise UserError(
            f"{file}: {job.metadata.name} has no search: add spec.tuning or spec.hyperparameterSearch (docs/tuning.md)"
        )
    return job


def found_of_file(file: str, job: TrainingJob, storage: str | None) -> tuple[LastSearch | None, Found | None]:
    """Return the last search of a file on this machine, and what it has found; None: there is none.

    Args:
        file: Its path.
        job: Its content.
        storage: Where `run` was told to store results.

    Raises:
        UserError: It can't be read.
    """
    from trainmaster_trainer.driver.identity import Refused
    from trainmaster_trainer.driver.last_search import last_search
    from trainmaster_trainer.errors import TrainingError
    from trainmaster_trainer.tuning.stored import found_in

    try:
        last = last_search(file, job, storage)
        return last, found_in(last.run, last.job.spec) if last is not None else None
    except (Refused, TrainingError) as error:
        raise UserError(str(error)) from None


def search_of_object(raw: Object) -> TrainingJob:
    """Return the job of an object of the cluster, which has a search.

    Raises:
        UserError: It has none, or is invalid.
    """
    job, problems = validate(raw)
    name = raw["metadata"]["name"]
    if job is None:
        raise UserError(f"{name} is no valid job: {problems[0]}")
    if job.spec.tuning is None:
        raise UserError(f"{name} has no search (spec.tuning or spec.hyperparameterSearch)")
    return job


def require_file(options: argparse.Namespace, command: str) -> None:
    """Raise UserError if a file's search can't be read here, or options don't fit a file."""
    require_trainer(command)
    given = [f"--{each}" for each in ("namespace", "context") if getattr(options, each) is not None]
    if given:
        raise UserError(f"{given[0]} is for names of jobs in a cluster, and {options.job} is a file")


def require_name(options: argparse.Namespace, command: str) -> None:
    """Raise UserError if a cluster can't be reached from here, or options don't fit the name of a job."""
    require_cluster(command)
    if options.storage is not None:
        raise UserError(f"--storage is for files; the storage of {options.job} is known to the cluster")


def _of_file(file: str, storage: str | None, command: str) -> Searched:
    if file == "-":
        raise UserError(f"`{command}` needs a file, or the name of a job: its run is found by it")
    job = search_of_file(file, command)
    last, found = found_of_file(file, job, storage)
    if last is None or found is None:
        where = f"in {storage}" if storage else "in ./trainmaster-runs; --storage looks elsewhere"
        raise UserError(f"no search of {job.metadata.name} has been run from here ({where}): trainmaster run {file}")
    (document,) = parse_documents(Path(file).read_text())
    return Searched(last.job, document.data, found, last.changes)


def _of_name(api: Api, name: str) -> Searched:
    from trainmaster_cli.cluster.jobs import get_job
    from trainmaster_cli.cluster.stored import StoredRun

    raw = get_job(api, name)
    job = search_of_object(raw)
    with StoredRun(api, raw).reading() as run:
        from trainmaster_trainer.tuning.stored import found_in

        try:
            found = found_in(run, job.spec)
        except ModuleNotFoundError as error:  # the journal is Optuna's; a result isn't
            raise UserError(
                f"the search of {name} isn't over, and its journal needs packages that are not installed "
                f"({error.name}): pip install 'trainmaster[trainer]'"
            ) from None
    if found is None:
        raise UserError(f"the search of {name} has no trials yet; see `trainmaster status {name} -n {api.namespace}`")
    return Searched(job, raw, found)
