"""What was observed of one TrainingJob at one moment."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trainmaster_api.messages import ExitMessage, ProgressMessage
from trainmaster_api.names import (
    ANNOTATION_DURATION,
    ANNOTATION_HOURS,
    ANNOTATION_TRIALS,
    CONTAINER,
    LABEL_ATTEMPT,
    LABEL_INDEX,
    LABEL_ROLE,
)
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.validation.validate import Problem

Object = dict[str, Any]

INIT_FAILED = "InitContainerFailed"
_ORDINARY_WAITS = ("PodInitializing", "ContainerCreating")
_MOUNTED = (
    ("Secret", "secret", "secretName"),
    ("Secret", "secret", "name"),
    ("ConfigMap", "configMap", "name"),
    ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
)


@dataclass(frozen=True, slots=True)
class Exit:
    """How the trainer container ended.

    Attributes:
        code: exit code; 137 and 143 are SIGKILL and SIGTERM.
        reason: the kubelet's word: Completed, Error, OOMKilled, StartError, ContainerStatusUnknown ...
        message: the termination message as it is; `result` decodes it.
        finished_at: RFC 3339.
    """

    code: int
    reason: str = ""
    message: str = ""
    finished_at: str = ""

    @property
    def result(self) -> ExitMessage | None:
        """The launcher's message, or None if the container ended without one."""
        return ExitMessage.decode(self.message) if self.message.startswith("{") else None


@dataclass(frozen=True, slots=True)
class PodView:
    """What the plan needs of a pod: about half a kilobyte instead of ten.

    Attributes:
        attempt: from its label; 0 if the label is missing or no number.
        index: of a worker, from 0.
        owner_uid: UID of the controller; empty: none.
        phase: Pending, Running, Succeeded, Failed, Unknown.
        reason: `status.reason`: Evicted, NodeShutdown, UnexpectedAdmissionError ...
        message: `status.message` that goes with it.
        ready: the Ready condition.
        ready_changed: when it last became what it is.
        scheduled_at: when it got a node.
        unschedulable: the scheduler's message while it finds no node.
        disruption: reason of the DisruptionTarget condition: EvictionByEvictionAPI, DeletionByTaintManager ...
        deleting: deletionTimestamp: the time of the request plus the grace period.
        waiting: reason why the container waits: ContainerCreating, ErrImagePull, CreateContainerConfigError ... While
            an init container in front of it has an obstacle, that one's.
        waiting_message: the kubelet's message to it.
        no_sandbox: the kubelet reports that volumes or network are not set up yet.
        duration: `loop.duration` that the pod was made for.
        max_trials: Trials of the search that it was made for; None: it has none, or all of a grid.
        image_id: what the kubelet runs as the training container: a repository and digest, or the image's own checksum.
        max_hours: Hours of the search that it was made for; None: it has no such limit.
        mounts: Secrets, ConfigMaps and claims that its volumes need, as `Kind name`, while there is no sandbox.
        exit: how the container ended.
    """

    uid: str
    name: str
    attempt: int
    role: str
    index: int | None = None
    owner_uid: str = ""
    created: str = ""
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    ready: bool = False
    ready_changed: str = ""
    node: str = ""
    scheduled_at: str = ""
    unschedulable: str = ""
    disruption: str = ""
    deleting: str = ""
    waiting: str = ""
    waiting_message: str = ""
    started_at: str = ""
    no_sandbox: bool = False
    duration: str = ""
    max_trials: int | None = None
    image_id: str = ""
    max_hours: float | None = None
    mounts: tuple[str, ...] = ()
    exit: Exit | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more, though the object is still there."""
        return self.phase in ("Succeeded", "Failed") or self.exit is not None

    @classmethod
    def from_pod(cls, pod: Object) -> PodView:
        """Trim a pod as the API serves it."""
        meta, status = pod["metadata"], pod.get("status") or {}
        labels, notes = meta.get("labels") or {}, meta.get("annotations") or {}
        conditions = {item["type"]: item for item in status.get("conditions") or ()}
        scheduled = conditions.get("PodScheduled", {})
        bound = scheduled.get("status") == "True"
        no_sandbox = bound and conditions.get("PodReadyToStartContainers", {}).get("status") == "False"
        state = _trainer_state(status)
        waiting, terminated = state.get("waiting") or {}, state.get("terminated")
        started = (state.get("running") or terminated or {}).get("startedAt") or ""
        return cls(
            uid=meta["uid"],
            name=meta["name"],
            attempt=_number(labels.get(LABEL_ATTEMPT)) or 0,
            role=sys.intern(labels.get(LABEL_ROLE, "")),
            index=_number(labels.get(LABEL_INDEX)),
            owner_uid=sys.intern(_controller(meta)),
            created=meta.get("creationTimestamp") or "",
            phase=sys.intern(status.get("phase") or "Pending"),
            reason=sys.intern(status.get("reason") or ""),
            message=status.get("message") or "",
            ready=conditions.get("Ready", {}).get("status") == "True",
            ready_changed=conditions.get("Ready", {}).get("lastTransitionTime") or "",
            node=sys.intern((pod.get("spec") or {}).get("nodeName") or ""),
            scheduled_at=(scheduled.get("lastTransitionTime") or "") if bound else "",
            unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else "",
            disruption=_disruption(conditions),
            deleting=meta.get("deletionTimestamp") or "",
            waiting=sys.intern(waiting.get("reason") or ""),
            waiting_message=waiting.get("message") or "",
            started_at=started,
            no_sandbox=no_sandbox,
            duration=sys.intern(notes.get(ANNOTATION_DURATION) or ""),
            max_trials=_number(notes.get(ANNOTATION_TRIALS)),
            image_id=sys.intern(_image_id(status)),
            max_hours=_decimal(notes.get(ANNOTATION_HOURS)),
            mounts=_mounts(pod.get("spec") or {}) if no_sandbox else (),
            exit=_exit(terminated) if terminated else None,
        )


@dataclass(frozen=True, slots=True)
class Rejection:
    """The API server refused to create a pod, the job's Secret or the heads' Service."""

    name: str
    code: int
    message: str
    kind: str = "Pod"


@dataclass(frozen=True, slots=True)
class Conflict:
    """An object of a name that the job needs, which this job does not own."""

    kind: str
    name: str
    owner: str = ""
    """Its controller, as `Kind/name`; empty: none."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that `plan` reads.

    The last three fields are observations from executing an earlier plan. The executor plans again with them at once,
    acts on that second plan, and forgets them.

    Attributes:
        raw: the TrainingJob as the API serves it, `status` included.
        job: the same, validated and with the operator's defaults filled in; None: there are problems.
        problems: what is wrong with it, all at once.
        pods: views of the pods with the job's label in its namespace, regardless of their owner.
        heads_service: whether the namespace has the Service that gives heads their names.
        progress: the trainer's newest message of this job's UID.
        progress_received: when that message arrived, by the operator's clock; the trainer's may be another one.
        listening_since: since when this process has taken progress messages; None: unknown.
        refused_at: when the job's pods were last refused or given back, as far as this process remembers.
        room_at: when pods of the namespace last went away, for the job that has waited longest for room.
        gone: last views of pods that have vanished lately, as far as remembered: a head that ended and was removed
            between two reconciles left its result there. May be empty.
        rejections: what the API server refused to create.
        conflicts: objects of other owners, found by a 409.
        secret_existed: EnsureSecret met a Secret that was there before.
    """

    raw: Object
    job: TrainingJob | None
    problems: tuple[Problem, ...] = ()
    pods: tuple[PodView, ...] = ()
    heads_service: bool = False
    progress: ProgressMessage | None = None
    progress_received: datetime | None = None
    listening_since: datetime | None = None
    refused_at: datetime | None = None
    room_at: datetime | None = None
    gone: tuple[PodView, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    conflicts: tuple[Conflict, ...] = field(default=())
    secret_existed: bool = False

    @property
    def name(self) -> str:
        """Name of the job."""
        return str(self.raw["metadata"]["name"])

    @property
    def uid(self) -> str:
        """UID of the job."""
        return str(self.raw["metadata"]["uid"])


def _trainer_state(status: Object) -> Object:
    """Return the state of the training container, or of an init container that failed or can't start."""
    states = {item.get("name"): item.get("state") or {} for item in status.get("containerStatuses") or ()}
    state: Object = states.get(CONTAINER, {})
    if state and "waiting" not in state:
        return state
    for item in status.get("initContainerStatuses") or ():
        found: Object = item.get("state") or {}
        reason, ended = (found.get("waiting") or {}).get("reason"), found.get("terminated") or {}
        if ended.get("exitCode"):
            said = f"init container {item['name']} failed"
            return {"terminated": {**ended, "reason": INIT_FAILED, "message": said}}
        if reason and reason not in _ORDINARY_WAITS:
            return found
    return state


def _image_id(status: Object) -> str:
    found = (item for item in status.get("containerStatuses") or () if item.get("name") == CONTAINER)
    return next((str(item.get("imageID") or "") for item in found), "")


def _mounts(spec: Object) -> tuple[str, ...]:
    """Return the objects that the volumes need. The kubelet reports which one is missing in events only."""
    found: list[str] = []
    for volume in spec.get("volumes") or ():
        projected = (volume.get("projected") or {}).get("sources") or ()
        for source in (volume, *projected):
            for kind, key, name in _MOUNTED:
                target = source.get(key) or {}
                if target.get(name) and not target.get("optional"):
                    found.append(f"{kind} {target[name]}")
    return tuple(dict.fromkeys(found))


def _exit(terminated: Object) -> Exit:
    return Exit(
        code=terminated.get("exitCode", 0),
        reason=sys.intern(terminated.get("reason") or ""),
        message=terminated.get("message") or "",
        finished_at=terminated.get("finishedAt") or "",
    )


def _controller(meta: Object) -> str:
    for owner in meta.get("ownerReferences") or ():
        if owner.get("controller"):
            return str(owner["uid"])
    return ""


def _disruption(conditions: dict[str, Object]) -> str:
    target = conditions.get("DisruptionTarget", {})
    return sys.intern(target.get("reason", "")) if target.get("status") == "True" else ""


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _decimal(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
