"""The TrainingJobs as last seen, lean: from kopf's events and our own writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

Object = dict[str, Any]

# Not read here, and most of a small object's size.
DROPPED_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"


class JobKey(NamedTuple):
    """Namespace and name of a TrainingJob."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def key_of(body: Object) -> JobKey:
    """Return the key of a TrainingJob."""
    return JobKey(body["metadata"]["namespace"], body["metadata"]["name"])


class JobStore:
    """Newest known body of each TrainingJob. An older one never replaces a newer one."""

    def __init__(self) -> None:
        self._bodies: dict[JobKey, Object] = {}

    def __len__(self) -> int:
        return len(self._bodies)

    def __iter__(self) -> Iterator[JobKey]:
        return iter(list(self._bodies))

    def get(self, key: JobKey) -> Object | None:
        """Return the body, or None."""
        return self._bodies.get(key)

    def put(self, body: Object) -> bool:
        """Take a body over if it is newer; True if it was."""
        key, old = key_of(body), self._bodies.get(key_of(body))
        if old is not None and version_of(old) >= version_of(body):
            return False
        self._bodies[key] = _lean(body)
        return True

    def remove(self, key: JobKey, uid: str) -> bool:
        """Forget the job of that UID; one that was created again under the name stays."""
        old = self._bodies.get(key)
        if old is None or old["metadata"]["uid"] != uid:
            return False
        del self._bodies[key]
        return True

    def phases(self) -> Counter[str]:
        """Return the number of jobs by phase, for the metrics."""
        return Counter(str((body.get("status") or {}).get("phase") or "Pending") for body in self._bodies.values())


def version_of(body: Object) -> int:
    """Return the resource version as a number: versions of one kind can be compared."""
    return int(body["metadata"]["resourceVersion"])


def _lean(body: Object) -> Object:
    meta = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    if DROPPED_ANNOTATION in meta.get("annotations", {}):
        meta["annotations"] = {k: v for k, v in meta["annotations"].items() if k != DROPPED_ANNOTATION}
    return {**body, "metadata": meta}
