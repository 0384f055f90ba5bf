"""What pods, their events and the job's own history say, as sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from .api import Object
from .jobs import age, parse_time

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError"}
_RECENT_SECONDS = 300
# Reasons of events that keep a pod from starting, each with what it means.
_EVENTS = {
    "FailedScheduling": "No node fits pod {pod}",
    "FailedMount": "A volume of pod {pod} can't be mounted",
    "FailedAttachVolume": "A volume of pod {pod} can't be attached",
    "FailedCreatePodSandBox": "The network of pod {pod} can't be set up",
    "NodeNotReady": "The node of pod {pod} is NotReady",
    "Preempted": "Pod {pod} was preempted",
    "Evicted": "Pod {pod} was evicted",
}
_HEALED_BY = {"Started", "Pulled", "Created"}


def from_pods(pods: Sequence[Object], now: datetime) -> str | None:
    """Return the most significant thing that pods wait for; None if they wait for nothing."""
    for find in (_image, _configuration, _node, _unschedulable):
        for pod in pods:
            found = find(pod, now)
            if found:
                return found
    return None


def _image(pod: Object, now: datetime) -> str | None:
    waiting = _waiting(pod)
    if waiting.get("reason") not in _IMAGE:
        return None
    return f"Pod {_name(pod)} can't pull its image: {_short(waiting.get('message') or waiting['reason'])}."


def _configuration(pod: Object, now: datetime) -> str | None:
    waiting = _waiting(pod)
    if waiting.get("reason") not in _CONFIG:
        return None
    detail = _short(waiting.get("message") or waiting["reason"])
    secret = re.search(r'secret "([^"]+)" not found', detail)
    if secret:
        return f"Pod {_name(pod)} waits for the Secret {secret[1]}, which does not exist in its namespace; create it."
    return f"The container of pod {_name(pod)} can't be created: {detail}."


def _node(pod: Object, now: datetime) -> str | None:
    status = pod.get("status") or {}
    ready = _condition(pod, "Ready")
    if status.get("phase") != "Running" or ready.get("status") == "True":
        return None
    if ready.get("reason") == "NodeNotReady" or status.get("reason") == "NodeLost" or ready.get("status") == "Unknown":
        node = (pod.get("spec") or {}).get("nodeName", "?")
        return f"Node {node} of pod {_name(pod)} is NotReady since {age(ready.get('lastTransitionTime'), now)}."
    return None


def _unschedulable(pod: Object, now: datetime) -> str | None:
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") != "False" or scheduled.get("reason") != "Unschedulable":
        return None
    said = str(scheduled.get("message", "")).split(" preemption:")[0]
    return f"No node fits pod {_name(pod)}: {_short(said)}."


def from_events(events: Sequence[Object], now: datetime) -> str | None:
    """Return what the newest event says that keeps a pod from starting, if it is recent and nothing healed it."""
    healed: set[str] = set()
    for event in reversed(events):
        pod, reason = (event.get("involvedObject") or {}).get("name", "?"), str(event.get("reason", ""))
        if reason in _HEALED_BY:
            healed.add(pod)
        moment = parse_time(event.get("lastTimestamp") or event.get("eventTime"))
        is_old = moment is not None and (now - moment).total_seconds() > _RECENT_SECONDS
        if reason in _EVENTS and pod not in healed and not is_old:
            said = str(event.get("message", "")).split(" preemption:")[0]
            return f"{_EVENTS[reason].format(pod=pod)}: {_short(said)}."
    return None


def stopper(job: Object) -> str:
    """Return who set run.suspend, as far as the API server knows: ` by kubectl-edit`; empty if it doesn't."""
    for entry in job["metadata"].get("managedFields") or ():
        fields: Any = entry.get("fieldsV1") or {}
        for key in ("f:spec", "f:run", "f:suspend"):
            fields = fields.get(key) if isinstance(fields, dict) else None
        if fields is not None and entry.get("manager"):
            when = f" at {entry['time']}" if entry.get("time") else ""
            return f" by {entry['manager']}{when}"
    return ""


def _waiting(pod: Object) -> Object:
    status = pod.get("status") or {}
    states = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return next((state["state"]["waiting"] for state in states if (state.get("state") or {}).get("waiting")), {})


def _condition(pod: Object, kind: str) -> Object:
    found = (pod.get("status") or {}).get("conditions") or ()
    return next((each for each in found if each["type"] == kind), {})


def _name(pod: Object) -> str:
    return str(pod["metadata"]["name"])


def _short(text: str) -> str:
    line = re.sub(r"\s+", " ", text).strip().rstrip(".")
    return line if len(line) <= 400 else f"{line[:399]}…"
