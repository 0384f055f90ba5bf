"""The last search of a job's file on this machine, for those who only look at it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace

from pydantic import ValidationError
from trainmaster_api.layout import run_path
from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.storage.store import Store, open_store

from . import own_code
from .identity import Record, Refused, changes_since, record_path, searched_job
from .places import folder_beside, folder_of, storage_address

_PATIENCE_SECONDS = 8.0


@dataclass(frozen=True)
class LastSearch:
    """A search that was run.

    Attributes:
        job: The job as it was searched, with the budget of the file.
        run: Store of the run.
        changes: How the file has changed since, as lines; empty: it hasn't.
    """

    job: TrainingJob
    run: Store
    changes: list[str]


def last_search(file: str, job: TrainingJob, asked: str | None) -> LastSearch | None:
    """Return the last search of a file; None: there was none.

    Args:
        file: Name of the file.
        job: Its content.
        asked: `--storage` of the command.

    Raises:
        Refused: The storage is none, or the search was begun by a version with other fields.
        TrainingError: It can't be read.
    """
    address, meta = storage_address(asked, job), job.metadata
    storage = job.spec.storage
    store = replace(open_store(str(address), storage.endpoint, storage.region, os.environ), patience=_PATIENCE_SECONDS)
    content = store.get(record_path(job))
    last: Record = json.loads(content) if content else {}
    if "tuning" not in last.get("fixed", {}):
        return None
    run = store.under(run_path(meta.namespace, meta.name, last["uid"]))
    try:
        searched = searched_job(job, last)
    except ValidationError:
        raise Refused(f"the search of {meta.name} was begun by another version of trainmaster") from None
    code = own_code.packed(job, folder_of(file), folder_beside(address))

    def changed_files() -> list[str]:
        return own_code.changes_since(run, last.get("archive", ""), code)

    found = changes_since(job, last, file=file, code=code, changed_files=changed_files)
    return LastSearch(searched, run, found)
