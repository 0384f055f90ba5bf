"""Where the run of a job is stored, and the run of each trial of its search below it."""

from __future__ import annotations

import os

from trainmaster_api.layout import run_path
from trainmaster_api.spec.job import TrainingJob

from .store import Store, open_store


def open_run(job: TrainingJob, storage_uri: str, below: str = "") -> Store:
    """Return the store of a run, with the keys of this process's environment.

    Args:
        job: Resolved, with its uid.
        storage_uri: Where runs are stored.
        below: A directory in the run, as the run of a trial is.

    Raises:
        ConfigurationError: `storage_uri` is not an address.
    """
    storage = job.spec.storage
    return open_store(storage_uri, storage.endpoint, storage.region, os.environ).under(_path(job, below))


def run_address(job: TrainingJob, storage_uri: str, below: str = "") -> str:
    """Return the address of a run, for messages: `storage_uri` is spelled as it was given."""
    return f"{storage_uri.rstrip('/')}/{_path(job, below)}"


def _path(job: TrainingJob, below: str) -> str:
    meta = job.metadata
    return "/".join(filter(None, (run_path(meta.namespace, meta.name, meta.uid), below)))
