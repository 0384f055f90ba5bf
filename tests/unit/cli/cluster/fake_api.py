"""An API server over recorded objects, with the refusals of the real one."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from trainmaster_cli.cluster.api import NotFound, Object, core_path, jobs_path


class FakeApi:
    """Jobs and pods by name, logs by pod, and what was asked of it."""

    def __init__(self, *jobs: Object, namespace: str = "team") -> None:
        self.namespace, self.server = namespace, "https://fake:6443"
        self.objects = {f"{jobs_path(job['metadata']['namespace'])}/{job['metadata']['name']}": job for job in jobs}
        self.pods: list[Object] = []
        self.events: list[Object] = []
        self.logs: dict[str, list[str]] = {}
        self.later: dict[str, list[str]] = {}
        """What a log that is followed has beyond."""
        self.changes: list[Object] = []
        """What a watch tells."""
        self.refuse: dict[str, Exception] = {}
        self.patched: list[tuple[str, Object]] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def get(self, path: str, **query: Any) -> Object:
        self.asked.append((path, query))
        if path in self.refuse:
            raise self.refuse[path]
        if path.endswith("/pods"):
            return {"items": copy.deepcopy(self.pods)}
        if path.endswith("/events"):
            return {"items": self.events}
        if path in (jobs_path(None), jobs_path(self.namespace)):
            return {
                "items": [job for key, job in self.objects.items() if key.startswith(path) or path == jobs_path(None)]
            }
        if path not in self.objects:
            raise NotFound(path)
        return copy.deepcopy(self.objects[path])

    def patch(self, path: str, body: Object) -> Object:
        self.patched.append((path, body))
        _merge(self.objects[path], body)
        return self.get(path)

    def lines(self, path: str, **query: Any) -> Iterator[bytes]:
        self.asked.append((path, query))
        if query.get("watch"):
            return iter([json.dumps({"type": "MODIFIED", "object": job}).encode() for job in self.changes])
        pod = path.split("/")[-2]
        if pod not in self.logs:
            raise NotFound(path)
        if query.get("follow"):
            since = query.get("sinceTime", "")
            seen = [line for line in self.logs[pod] if line[:19] >= since[:19]]
            return iter([line.encode() for line in [*seen, *self.later.get(pod, [])]])
        return iter([line.encode() for line in self.logs[pod]])


def _merge(target: Object, patch: Object) -> None:
    for key, value in patch.items():
        if isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


def secret_path(namespace: str, name: str) -> str:
    return core_path(namespace, "secrets", name)
