"""Jobs, their pods and their events, as plain data."""

from __future__ import annotations

import difflib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from trainmaster_api.names import LABEL_ATTEMPT, LABEL_INDEX, LABEL_JOB, LABEL_ROLE, ROLE_HEAD
from trainmaster_api.text import duration_text

from trainmaster_cli.errors import UserError

from .api import Api, Expired, NotFound, Object, core_path, jobs_path

_WATCH_SECONDS, _LEAST_SECONDS = 240, 1.0
_FINAL = ("Complete", "Failed")


def get_job(api: Api, name: str) -> Object:
    """Return a job.

    Raises:
        UserError: There is none; the message has the nearest name.
    """
    try:
        return api.get(f"{jobs_path(api.namespace)}/{name}")
    except NotFound:
        pass
    names = [each["metadata"]["name"] for each in list_jobs(api)]
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean `{near[0]}`?" if near else "`trainmaster ls -A` shows the jobs of all namespaces"
    raise UserError(f"no TrainingJob {name} in namespace {api.namespace}; {hint}")


def list_jobs(api: Api, *, everywhere: bool = False) -> list[Object]:
    """Return the jobs of the namespace, or of all of them, by namespace and name."""
    found = api.get(jobs_path(None if everywhere else api.namespace))["items"]
    return sorted(found, key=lambda job: (job["metadata"]["namespace"], job["metadata"]["name"]))


def watch_job(api: Api, job: Object, is_over: threading.Event | None = None) -> Iterator[Object | None]:
    """Yield a job each time it changes; None when it was deleted, which is the end.

    Args:
        api: Where it is.
        job: As it is now.
        is_over: Set when no one reads any more: no other watch is begun.
    """
    import json

    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    version = job["metadata"]["resourceVersion"]
    is_over, began = is_over or threading.Event(), -_LEAST_SECONDS
    # a watch that ends at once, because something between cuts it off, isn't begun again at once
    while not is_over.wait(max(0.0, began + _LEAST_SECONDS - time.monotonic())):
        began = time.monotonic()
        query = {
            "watch": True,
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": version,
            "timeoutSeconds": _WATCH_SECONDS,
        }
        try:
            for line in api.lines(jobs_path(api.namespace), **query):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise Expired
                seen = event["object"]
                if event["type"] == "DELETED" or seen["metadata"]["uid"] != uid:
                    yield None
                    return
                version = seen["metadata"]["resourceVersion"]
                yield seen
        except Expired:
            try:
                seen = api.get(f"{jobs_path(api.namespace)}/{name}")
            except NotFound:
                yield None
                return
            version = seen["metadata"]["resourceVersion"]
            yield seen


def pods_of(api: Api, name: str) -> list[Object]:
    """Return the pods of a job, of all attempts: the head first, then workers by number."""
    query = {"labelSelector": f"{LABEL_JOB}={name}"}
    found = api.get(core_path(api.namespace, "pods"), **query)["items"]
    return sorted(found, key=lambda pod: (attempt_of(pod), role_of(pod) != ROLE_HEAD, index_of(pod)))


def events_of(api: Api, names: set[str]) -> list[Object]:
    """Return the events of objects of these names, oldest first; empty without the right to read them."""
    try:
        found = api.get(core_path(api.namespace, "events"))["items"]
    except UserError:
        return []
    mine = [event for event in found if (event.get("involvedObject") or {}).get("name") in names]
    return sorted(mine, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")


def status_of(job: Object) -> Object:
    """Return the status of a job; empty if it has none yet."""
    return job.get("status") or {}


def condition(job: Object, kind: str) -> Object:
    """Return a condition; empty if there is none."""
    return next((each for each in status_of(job).get("conditions") or () if each["type"] == kind), {})


def holds(job: Object, kind: str) -> bool:
    """Return whether a condition is true."""
    return bool(condition(job, kind).get("status") == "True")


def is_finished(job: Object) -> bool:
    """Return whether a job is Complete or Failed."""
    return any(holds(job, kind) for kind in _FINAL)


def labels_of(pod: Object) -> dict[str, str]:
    """Return the labels of an object."""
    return pod["metadata"].get("labels") or {}


def attempt_of(pod: Object) -> int:
    """Return the attempt that a pod belongs to."""
    return int(labels_of(pod).get(LABEL_ATTEMPT) or 0)


def role_of(pod: Object) -> str:
    """Return `head` or `worker`."""
    return labels_of(pod).get(LABEL_ROLE, "")


def index_of(pod: Object) -> int:
    """Return the number of a worker; 0 for a head."""
    return int(labels_of(pod).get(LABEL_INDEX) or 0)


def parse_time(text: Any) -> datetime | None:
    """Return a time of Kubernetes; None for nothing and for anything else."""
    try:
        moment = datetime.fromisoformat(text) if text else None
    except (TypeError, ValueError):
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC) if moment else None


def age(text: Any, now: datetime, unknown: str = "-") -> str:
    """Return how long ago a time was: `3m20s`."""
    moment = parse_time(text)
    return duration_text((now - moment).total_seconds() if moment else None, unknown)
