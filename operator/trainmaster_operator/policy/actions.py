"""What a plan may ask for. Each action is idempotent: done twice it is done once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class EnsureSecret:
    """Create the job's Secret; one that is there already is left alone (its content outlives attempts)."""

    name: str


@dataclass(frozen=True, slots=True)
class EnsureService:
    """Create the job's headless Service."""

    name: str


@dataclass(frozen=True, slots=True)
class CreatePod:
    """Create one pod of an attempt. `index` counts workers from 0; the head has none."""

    name: str
    role: Literal["head", "worker"]
    attempt: int
    index: int | None = None


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete the pod of that UID; one that is gone already is a success. `grace`: seconds; None: the pod's own."""

    name: str
    uid: str
    grace: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Delete the TrainingJob of that UID: its time to live after the end is over."""

    uid: str


Action = EnsureSecret | EnsureService | CreatePod | DeletePod | DeleteJob


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event on the TrainingJob, to be sent after the status that it tells of was written."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
