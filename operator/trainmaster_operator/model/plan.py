"""The plan: from a snapshot to actions and the status that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .actions import Action, CreatePod, DeleteJob, DeletePod, EnsureSecret, EnsureService, Event

__all__ = ["Action", "CreatePod", "DeleteJob", "DeletePod", "EnsureSecret", "EnsureService", "Event", "Plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done now.

    Attributes:
        actions: in this order: what outlives attempts first, then pods. All pods of an attempt stand in one plan and
            may be created in parallel, once the Secret and the Service are there.
        status: the complete desired status. It is written only after every action has succeeded, because the next
            plan trusts it: a written attempt is one whose pods have all been created.
        requeue_after: seconds until the plan would change by itself; None: not without an event.
        events: to be sent after the status was written; empty if it needn't be written.
    """

    actions: tuple[Action, ...]
    status: dict[str, Any]
    requeue_after: float | None = None
    events: tuple[Event, ...] = ()
