"""Which run a file refers to on a laptop: the newest one of its name, a longer one, or a new one. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from trainmaster_api.archive import Archive
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import SEARCHES, TrainingJob
from trainmaster_api.spec.training import Training
from trainmaster_api.spec.tuning import CHANGEABLE
from trainmaster_api.types import parse_count

from trainmaster_trainer.reporting.trackers.base import flatten

_LAST = "last.json"  # the newest run of a name: its uid, and what identifies it
Record = dict[str, Any]


def record_path(job: TrainingJob) -> str:
    """Return where the record of a job's newest run is, under the storage URI."""
    return f"{job.metadata.namespace}/{job.metadata.name}/{_LAST}"


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """The run can't start; the message says why and what to do."""


@dataclass(frozen=True)
class Identity:
    """The run that a file refers to.

    Attributes:
        uid: Its id, part of its address.
        record: Content that `last.json` must have.
        is_changed: Whether `last.json` must be written.
    """

    uid: str
    record: Record
    is_changed: bool

    @property
    def is_outgrown(self) -> bool:
        """Whether the run was made longer since it was last complete, so that its model is not the result."""
        return bool(self.record.get("outgrown"))

    def completed(self) -> Record:
        """Return the record of the run once it is complete."""
        return {key: value for key, value in self.record.items() if key != "outgrown"}


def identify(
    job: TrainingJob,
    last: Record | None,
    *,
    is_fresh: bool,
    file: str,
    code: Archive | None = None,
    changed_files: Callable[[], list[str]] = list,
) -> Identity:
    """Find the run that a file refers to.

    Everything under `spec.training`, the search and the number of workers identify a run, except `loop.duration`,
    which may grow, and those fields of `tuning` that may be changed.
    Of `code.path` it is the content that counts, and not the name of the folder.

    Args:
        job: Content of the file.
        last: Content of `last.json`; None: no run of this name exists.
        is_fresh: Start a new run in any case.
        file: Name of the file, for the message.
        code: Content of `code.path`; None: the job has none.
        changed_files: Returns how the code differs from that of `last`, one line for each file.

    Raises:
        Refused: The file or the code has changed since the last run of that name.
    """
    fixed, duration = _fixed(job, code)
    digest = _digest(fixed)
    archive = {"archive": code.sha256} if code is not None else {}
    if last is None:
        return _new(fixed, duration, digest, 1, {}, archive)
    last = _upgraded(last)
    if is_fresh:
        same = last["number"] if last["digest"] == digest else 0
        return _new(fixed, duration, digest, max(last["numbers"].get(digest, 0), same) + 1, last["numbers"], archive)
    changes = _changes(job.metadata.name, last, fixed, file, changed_files)
    if changes:
        way_out = "start a new run under the same name with --fresh, or give the job another metadata.name"
        raise Refused("\n".join([*changes, way_out]))
    if duration == last["duration"]:
        return Identity(last["uid"], last, is_changed=False)
    _require_growth(last["duration"], duration, file)
    return Identity(last["uid"], {**last, "duration": duration, "outgrown": True}, is_changed=True)


def changes_since(
    job: TrainingJob,
    last: Record,
    *,
    file: str,
    code: Archive | None = None,
    changed_files: Callable[[], list[str]] = list,
) -> list[str]:
    """Return how a file differs from what identifies the last run of its name, as lines; empty: it doesn't.

    The number of workers isn't compared: that of the run may have been given on the command line.

    Args:
        job: Content of the file.
        last: Content of `last.json`.
        file: Name of the file.
        code: Content of `code.path`; None: the job has none.
        changed_files: Returns how the code differs from that of `last`, one line for each file.
    """
    last = _upgraded(last)
    fixed = {**_fixed(job, code)[0], "workers": last["fixed"]["workers"]}
    return _changes(job.metadata.name, last, fixed, file, changed_files)


def searched_job(job: TrainingJob, last: Record) -> TrainingJob:
    """Return a job with the training and the search that its last run was begun with, and its own budget.

    Args:
        job: The job as its file is now.
        last: Content of `last.json`.

    Raises:
        ValidationError: The run was begun by a version with other fields.
    """
    last, document = _upgraded(last), job.wire()
    training = json.loads(json.dumps(last["fixed"]["training"]))
    training["loop"]["duration"] = last["duration"]
    own = document["spec"]["training"].get("code")
    if own is not None:
        training.setdefault("code", own)
    budget = job.spec.tuning.budget.wire() if job.spec.tuning is not None else {}
    spec = {key: value for key, value in document["spec"].items() if key not in SEARCHES}
    spec |= {"training": training, "tuning": {**last["fixed"]["tuning"], "budget": budget}}
    return TrainingJob.model_validate({**document, "spec": spec})


def data_changed(file: str, changes: list[str], *, model: str | None, again: str) -> str:
    """Return why a run isn't continued, or isn't called complete, on data that has changed since it began.

    Args:
        file: Name of the job's file.
        changes: What has changed.
        model: Where the model of a complete run is; None: it isn't complete.
        again: The command that starts a new run.
    """
    state = f"complete; its model, trained on the data as it was, is in {model}" if model else "not continued"
    lines = [f"{FailureClass.DATA_CHANGED}: the data of {file} has changed since its run began:"]
    lines += [f"  {change}" for change in changes]
    lines += [f"nothing was trained; the run is {state}"]
    return "\n".join([*lines, f"train on the new data as a new run: {again}; or restore the data"])


def _fixed(job: TrainingJob, code: Archive | None) -> tuple[Record, str]:
    """Return what identifies a run, and its duration."""
    training = job.spec.training.wire()
    duration = str(training["loop"].pop("duration"))
    fixed: Record = {"training": training, "workers": job.spec.cluster.workers.count}
    if job.spec.tuning is not None:  # more trials of the same search are an extension of it
        fixed["tuning"] = {key: value for key, value in job.spec.tuning.wire().items() if key not in CHANGEABLE}
    if code is not None:
        own = training.pop("code")
        fixed["code"] = code.tree
        if "requirements" in own:  # of which the content is in the code; where its wheels come from changes nothing
            fixed["requirements"] = own["requirements"]
    return fixed, duration


def _digest(fixed: Record) -> str:
    text = json.dumps(fixed, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _new(fixed: Record, duration: str, digest: str, number: int, numbers: dict[str, int], archive: Record) -> Identity:
    uid = digest if number == 1 else f"{digest}-{number}"
    record = {
        "uid": uid, "digest": digest, "number": number, "numbers": {**numbers, digest: number},
        "duration": duration, "fixed": fixed, **archive,
    }  # fmt: skip
    return Identity(uid, record, is_changed=True)


def _completed(fixed: Record) -> Record:
    """Return what identifies a run, with the defaults of fields that the version that wrote it didn't have."""
    try:
        training = Training.model_validate(fixed["training"]).wire()
    except ValidationError:  # a field of that version is gone: it is another run
        return fixed
    training["loop"].pop("duration")
    return {**fixed, "training": training}


def _upgraded(last: Record) -> Record:
    """Return a record in the present format; the digest of older versions included the duration. The uid stays."""
    if "duration" in last:
        return last
    fixed = json.loads(json.dumps(last["fixed"]))
    duration = str(fixed["training"]["loop"].pop("duration"))
    number = int(last.get("number", 1))
    uid = last["digest"] if number == 1 else f"{last['digest']}-{number}"
    numbers = {**last.get("numbers", {}), last["digest"]: number}
    return {
        "uid": uid, "digest": _digest(fixed), "number": 1, "numbers": numbers, "duration": duration, "fixed": fixed,
    }  # fmt: skip


def _require_growth(before: str, after: str, file: str) -> None:
    (old, old_unit), (new, new_unit) = parse_count(before), parse_count(after)
    path = "training.loop.duration"
    way_out = "start a new run under the same name with --fresh, or give the job another metadata.name"
    if old_unit != new_unit:
        raise Refused(
            f"{file}: {path} was changed from {before} to {after}; a run can only be extended in the same unit: "
            f"{way_out}"
        )
    if new < old:
        raise Refused(f"{file}: {path} was changed from {before} to {after}; a run can't be shortened: {way_out}")


def _changes(name: str, last: Record, new: Record, file: str, changed_files: Callable[[], list[str]]) -> list[str]:
    digest = _digest(new)
    if last["digest"] == digest or _digest(old := _completed(last["fixed"])) == digest:
        return []
    files = changed_files() if "code" in old and "code" in new else []
    before, after = flatten(old), flatten(new)
    what = f"the code of {file}" if old.keys() == new.keys() and {**old, "code": 0} == {**new, "code": 0} else file
    lines = [f"{what} has changed since the last run of {name}:"]
    if files:
        before.pop("code")
        after.pop("code")
        lines += [f"  {line}" for line in files]
    return lines + [
        f"  {key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]
