"""Reading TrainingJobs from files, with what can be checked without opening the data."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from trainmaster_api.spec.images import is_archive
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.validation.references import check_references
from trainmaster_api.validation.validate import Problem, format_problems
from trainmaster_api.validation.yaml_reader import validate_text

from .errors import UserError


@dataclass(frozen=True)
class Checked:
    """One document of a file: a job, or what is wrong with it."""

    job: TrainingJob | None
    problems: list[Problem]


def print_problems(name: str, problems: list[Problem]) -> None:
    """Print problems to standard error, one per line, with file and line."""
    print(format_problems(problems, "standard input" if name == "-" else name), file=sys.stderr)


def check_file(name: str, *, imports: bool = False) -> list[Checked]:
    """Check every document of a file.

    Args:
        name: Path; `-`: standard input.
        imports: Import the code that `class` refers to, in a process of its own, and check its arguments.

    Raises:
        UserError: The file can't be read.
    """
    text = _read(name)
    folder = Path() if name == "-" else Path(name).parent

    def more(job: TrainingJob) -> list[Problem]:
        return [*data_problems(job, folder), *(check_references(job, folder) if imports else ())]

    return [Checked(job, problems) for job, problems in validate_text(text, also=more)]


def data_problems(job: TrainingJob, folder: Path) -> list[Problem]:
    """Return a problem for each relative path of the data that doesn't exist; it is relative to the job's file."""
    data = job.spec.training.data
    if data.source is None:
        return []
    sources = {"source": data.source, **data.own_sources}
    return [
        Problem(f"spec.training.data.{field}", f"{missing} does not exist", f'"{source}"')
        for field, source in sources.items()
        if (missing := _missing(source, folder))
    ]


def _missing(source: str, folder: Path) -> str | None:
    """Return the file or folder that a source names and that isn't there."""
    kind, _, rest = source.partition(":")
    address = rest if kind == "images" else source
    if kind == "sklearn" or "://" in source or address.startswith("/"):
        return None
    found = folder / address
    what = "file" if kind != "images" or is_archive(address) else "folder"
    if kind != "images" and "*" in address and not found.exists():  # a pattern: its folder must be there
        while "*" in str(found.relative_to(folder)):
            found = found.parent
        what = "folder"
    is_there = found.is_dir() if what == "folder" else found.exists()  # a table may be a folder of files
    return None if is_there else f"{what} {found}"


def _read(name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except FileNotFoundError:
        raise UserError(f"file {name} does not exist") from None
    except IsADirectoryError:
        raise UserError(f"{name} is a directory; pass the TrainingJob's file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"{name} can't be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not text: byte {error.start} is not UTF-8") from None
