"""Brings what a job has made from the storage of its run to this disk."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from trainmaster_api.archive import ArchiveError, safe_path
from trainmaster_api.layout import (
    CODE,
    CODE_DIFF,
    ENVIRONMENT,
    EXPORT,
    MODEL,
    REPORT,
    SEARCH,
    SEARCH_JOURNAL,
    SEARCH_RESULT,
)

from trainmaster_cli.errors import UserError

from .api import Api
from .jobs import get_job, status_of
from .stored import StoredRun

_RECORD = (CODE_DIFF, ENVIRONMENT)
_SEARCH = (SEARCH_JOURNAL, SEARCH_RESULT)
_END = "data.json"
"""Written last: a model without it isn't whole."""


def fetch(api: Api, name: str, target: Path | None) -> int:
    """Copy the model, what it was made with, and what a search has found, and print the checksum of each file.

    The folder appears when it is whole, and never takes the place of one that has something in it.

    Args:
        api: The cluster.
        name: Of the job.
        target: Folder; default: one with the name of the job.

    Raises:
        UserError: There is no such job, it has no model, its storage can't be read, or the folder isn't empty.
    """
    job = get_job(api, name)
    folder = target or Path(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already, and nothing is overwritten: pass another folder with -o")
    run = StoredRun(api, job)
    files = {path: size for part in (MODEL, EXPORT, REPORT, CODE) for path, size in run.files(f"{part}/").items()}
    files |= {path: size for path, size in run.files(f"{SEARCH}/").items() if path in _SEARCH}
    phase = status_of(job).get("phase") or "Pending"
    is_search = phase == "Complete" and SEARCH_RESULT in files  # which may have no final run
    if f"{MODEL}/{_END}" not in files and not is_search:
        hint = "its training left none" if phase == "Complete" else "only a job that is Complete has one"
        raise UserError(f"{name} is {phase} and has no model: {hint}")
    try:
        _copy(run, sorted(files), folder)
    except ArchiveError as error:
        raise UserError(f"{name} has a file in its storage that can't lie below {folder}: {error}") from None
    except OSError as error:
        where = error.filename or folder
        raise UserError(f"{where} can't be written: {(error.strerror or str(error)).lower()}") from None
    return 0


def _copy(run: StoredRun, files: list[str], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as place:
        whole = Path(place) / "run"
        for path in [*files, *_RECORD]:
            try:
                run.download(path, whole.joinpath(*safe_path(path)))
            except FileNotFoundError:
                if path in _RECORD:  # older runs have none, and not every code has a diff
                    continue
                raise
            size = (whole / path).stat().st_size
            print(f"{_sha256(whole / path)}  {folder / path}  {size:,} bytes", flush=True)
        shutil.copymode(folder.parent, whole)
        if folder.exists():
            folder.rmdir()
        whole.rename(folder)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
