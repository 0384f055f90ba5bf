"""Reading TrainingJobs from files, with what can be checked without opening the data."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from trainmaster_api.requirements import read
from trainmaster_api.spec.code import Code
from trainmaster_api.spec.images import is_archive
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.validation.references import check_references
from trainmaster_api.validation.validate import Problem, format_problems
from trainmaster_api.validation.yaml_reader import validate_text

from .errors import UserError

_NO_MODULE = re.compile(r"[Nn]o module (?:named )?'([^'.]+)")


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
        found = [*data_problems(job, folder), *code_problems(job, folder)]
        own = code_folder(job, folder)
        return [*found, *(reference_problems(job, own) if imports and own is not None and own.is_dir() else ())]

    return [Checked(job, problems) for job, problems in validate_text(text, also=more)]


def only_job(name: str, command: str, *, imports: bool = True) -> TrainingJob | None:
    """Return the one job of a file; None: it is invalid, which has been printed.

    Args:
        name: Path; `-`: standard input.
        command: Which asks, for the message.
        imports: As for `check_file`.

    Raises:
        UserError: The file can't be read, or holds several.
    """
    found = check_file(name, imports=imports)
    bad = [checked for checked in found if checked.job is None]
    for checked in bad:
        print_problems(name, checked.problems)
    if not bad and len(found) > 1:
        raise UserError(f"{name} holds {len(found)} TrainingJobs; `{command}` accepts exactly one")
    return None if bad else found[0].job


def data_problems(job: TrainingJob, folder: Path) -> list[Problem]:
    """Return a problem for each relative path of the data that doesn't exist; it is relative to the job's file."""
    data = job.spec.training.data_or_none
    if data is None or data.source is None:
        return []
    sources = {"source": data.source, **data.own_sources}
    return [
        Problem(f"spec.training.data.{field}", f"{missing} does not exist", f'"{source}"')
        for field, source in sources.items()
        if (missing := _missing(source, folder))
    ]


def code_folder(job: TrainingJob, folder: Path) -> Path | None:
    """Return the folder of the job's own code; None: it is elsewhere, so nothing can be imported here."""
    code = job.spec.training.code
    if code is None:
        return folder
    return folder / code.path if code.path is not None else None


def code_problems(job: TrainingJob, folder: Path) -> list[Problem]:
    """Return a problem for a folder of code, or a lock file in it, that doesn't exist or can't be used."""
    code = job.spec.training.code
    if code is None or code.path is None:
        return []
    own = folder / code.path
    if not own.is_dir():
        what = "is a file; name its folder" if own.exists() else "does not exist"
        return [Problem("spec.training.code.path", f"folder {own} {what}", f'"{code.path}"')]
    return [*_lock_problems(code, own), *_wheels_problems(code, own)]


def _lock_problems(code: Code, own: Path) -> list[Problem]:
    if code.requirements is None:
        return []
    path, file = "spec.training.code.requirements", own / code.requirements
    if not file.is_file():
        return [Problem(path, f"file {file} does not exist", f'"{code.requirements}"')]
    _, problems = read(file.read_bytes())
    return [Problem(path, f"{code.requirements}: {each}") for each in problems]


def _wheels_problems(code: Code, own: Path) -> list[Problem]:
    wheels = code.wheels
    if wheels is None or "://" in wheels or wheels.startswith("/") or (own / wheels).is_dir():
        return []
    return [Problem("spec.training.code.wheels", f"folder {own / wheels} does not exist", f'"{wheels}"')]


def reference_problems(job: TrainingJob, own: Path) -> list[Problem]:
    """Return what is wrong with references; a package that a lock file may bring need not be on this machine."""
    code = job.spec.training.code
    found = check_references(job, own)
    if code is None or code.requirements is None:
        return found
    return [problem for problem in found if not _may_be_locked(problem.message, own)]


def _may_be_locked(message: str, own: Path) -> bool:
    match = _NO_MODULE.search(message)
    return match is not None and not any((own / name).exists() for name in (match[1], f"{match[1]}.py"))


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
