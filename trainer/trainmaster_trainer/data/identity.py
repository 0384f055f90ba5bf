"""The data of a run is that which it began with: the stored fingerprint, and what is done where it differs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError
from trainmaster_api.layout import FINGERPRINT, Fingerprint
from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.errors import DataChanged, DataError
from trainmaster_trainer.storage.store import Changed, Store

from .differences import shown, what_changed
from .fingerprint import of_value, take


def stored(run: Store) -> Fingerprint | None:
    """Return the fingerprint that a run began with; None: it has none, or none that can be read."""
    return _parsed(run.get(FINGERPRINT))


def changes_since(known: Fingerprint, job: TrainingJob, base_dir: Path, env: Mapping[str, str]) -> list[str]:
    """Return what has changed in a job's data since its run began, for people; empty: nothing.

    Args:
        known: The fingerprint that the run began with.
        job: The resolved job.
        base_dir: What relative paths are relative to.
        env: Environment with the S3 keys.
    """
    try:
        return shown(what_changed(known, take(job, base_dir, env, known)))
    except DataError as gone:
        return [gone.message]


def check(run: Store, job: TrainingJob, base_dir: Path, env: Mapping[str, str]) -> Fingerprint:
    """Return the fingerprint of a run's data, before the data is read; rank 0 only.

    It is taken before reading and not after: if the data changes in between, the next attempt refuses data that it
    might have accepted, and never the other way round.

    Raises:
        DataChanged: It is not the data that the run began with.
        DataError: There is no such source.
    """
    known = stored(run)
    try:
        now = take(job, base_dir, env, known)
    except DataError as gone:
        if known is None:
            raise
        raise _refusal([gone.message]) from gone
    if known is not None and job.spec.training.data.source is not None:
        _require_same(known, now)
    return now


def of_dataset(now: Fingerprint, dataset: object) -> Fingerprint:
    """Return the fingerprint of data of the user's own: that of the dataset's attribute `fingerprint`, if it has one.

    Args:
        now: What `check` returned.
        dataset: The object of the user's class.
    """
    value = getattr(dataset, "fingerprint", None)
    return of_value(now.source, value) if isinstance(value, str) and value else now


def settle(run: Store, now: Fingerprint, *, is_resumed: bool) -> str:
    """Store the fingerprint of a new run, or compare with that of the run; under the run's fence.

    Args:
        run: Store of the run, which this attempt has claimed.
        now: What `check` returned.
        is_resumed: The run has a checkpoint.

    Returns:
        What a user has to know if a change can't be noticed; else empty.

    Raises:
        DataChanged: It is not the data that the run began with.
    """
    while True:
        found = run.get_versioned(FINGERPRINT)
        known = _parsed(found[0] if found else None)
        if known is not None:
            _require_same(known, now)
            return ""
        try:
            run.put_if(FINGERPRINT, now.model_dump_json(by_alias=True).encode(), found[1] if found else None)
        except Changed:
            continue  # an attempt that is fenced since was first, or our own retried write had succeeded
        if not now.digest:
            return (
                f"{now.source} has no fingerprint of its data (a text attribute `fingerprint` of the dataset): "
                "a change of the data can't be noticed when the run is resumed"
            )
        if is_resumed:
            return (
                "this run has no fingerprint of the data that it began with, so whether the data has changed since is "
                "unknown; later attempts are compared with the data as it is now"
            )
        return ""


def _parsed(content: bytes | None) -> Fingerprint | None:
    try:
        return Fingerprint.model_validate_json(content) if content else None
    except ValidationError:
        return None


def _require_same(known: Fingerprint, now: Fingerprint) -> None:
    changes = what_changed(known, now)
    if changes:
        raise _refusal(shown(changes))


def _refusal(changes: list[str]) -> DataChanged:
    return DataChanged(f"the data has changed since this run began ({'; '.join(changes)}); nothing was trained on it")
