"""The code of a run: packed from its folder on a laptop, kept beside the run's results, compared with what it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trainmaster_api import git_state, names
from trainmaster_api.archive import Archive, ArchiveError, changes, unpack
from trainmaster_api.layout import code_listing_path, code_path
from trainmaster_api.packing import listing_of, pack
from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.code.bring import FOLDER, bring, decoded
from trainmaster_trainer.errors import CodeError
from trainmaster_trainer.storage.store import Changed, Store

from .identity import Refused
from .places import LOCKS

if TYPE_CHECKING:
    from trainmaster_trainer.data.entries import Entry

GIT_FILE = "git-state"


def packed(job: TrainingJob, base_dir: Path, results: Path) -> Archive | None:
    """Return the archive of `code.path`; None for a job without one.

    Args:
        job: Of the file.
        base_dir: Folder of the file, which `path` is relative to.
        results: Where runs are kept: no part of the code.

    Raises:
        Refused: It can't be packed.
    """
    code = job.spec.training.code
    if code is None or code.path is None:
        return None
    try:
        # results may be kept in the very folder of the code
        runs = [results, results / job.metadata.namespace, results / LOCKS]
        return pack(base_dir / code.path, runs, job.spec.training.results)
    except ArchiveError as error:
        raise Refused(f"spec.training.code: {error}") from None


def keep(run: Store, archive: Archive) -> None:
    """Store an archive and its listing in the run's directory, unless they are there."""
    _put(run, archive.sha256, archive.data, archive.listing)


def _put(run: Store, sha256: str, data: bytes, files: Mapping[str, str]) -> None:
    listing = json.dumps(files, indent=0, ensure_ascii=False).encode()
    for path, content in ((code_listing_path(sha256), listing), (code_path(sha256), data)):
        if run.stat(path) is None:
            try:
                run.put_if(path, content, None)
            except Changed:  # the same content has the same address
                continue


def keep_inline(run: Store, job: TrainingJob, file: str) -> None:
    """Store the archive of `code.inline` in the run's directory: the job, and the Secret that has it, may be deleted.

    Args:
        run: Store of the run.
        job: The resolved job.
        file: The archive, where it came in the run's Secret; empty: it is in the job.

    Raises:
        TrainingError: It isn't what the job says, or storage refuses it or doesn't respond.
    """
    code = job.spec.training.code
    if code is None or code.inline is None or run.stat(code_path(code.inline.sha256)) is not None:
        return
    data = Path(file).read_bytes() if file else decoded(code.inline.data)
    try:
        files = listing_of(data, code.inline.sha256)
    except ArchiveError as error:
        raise CodeError(f"spec.training.code: {error}") from None
    _put(run, code.inline.sha256, data, files)


def listing(run: Store, sha256: str) -> dict[str, str]:
    """Return path -> digest of an archive that was kept; empty if it is gone."""
    found: dict[str, str] = json.loads(run.get(code_listing_path(sha256)) or b"{}")
    return found


def changes_since(run: Store, sha256: str, archive: Archive | None) -> list[str]:
    """Return how a job's code differs from an archive that was kept, one line for each file."""
    return changes(listing(run, sha256), archive.listing if archive is not None else {})


def unpacked(job: TrainingJob, archive: Archive | None, environment: Mapping[str, str], scratch: Path) -> Path | None:
    """Return the folder that the job's code is in, read-only; None: the job names none.

    Raises:
        TrainingError: It can't be brought here.
    """
    code = job.spec.training.code
    if archive is not None:
        unpack(archive.data, archive.sha256, scratch / FOLDER)
        return scratch / FOLDER
    return bring(code, job.spec.storage, environment, scratch) if code is not None else None


def packages(job: TrainingJob, folder: Path | None, environment: Mapping[str, str]) -> Entry | None:
    """Install the packages of the job's lock file, which are kept as long as the result is there; None: it has none.

    Raises:
        TrainingError: They can't be installed.
    """
    code = job.spec.training.code
    if code is None or folder is None or code.requirements is None:
        return None
    from trainmaster_trainer.code.install import install

    return install(code, folder, job.spec.storage, environment)


def variables(packages: Entry | None) -> dict[str, str]:
    """Return what is added to the environment of the ranks for packages."""
    if packages is None:
        return {}
    from trainmaster_trainer.code.installed import packages_of

    return {names.ENV_PACKAGES: str(packages_of(packages))}


def note_git(job: TrainingJob, base_dir: Path, archive: Archive | None, scratch: Path) -> str:
    """Write down what git says about the job's code, or about the folder of its file; return the file.

    Returns:
        Its path; empty: git says nothing, or the code is elsewhere.
    """
    code = job.spec.training.code
    if code is not None and code.path is None:
        return ""
    folder = base_dir / code.path if code is not None and code.path is not None else base_dir
    found = git_state.gather(folder, archive.listing if archive is not None else None)
    if found is None:
        return ""
    file = scratch / GIT_FILE
    file.write_text(found.encode())
    return str(file)
