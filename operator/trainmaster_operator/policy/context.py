"""The context of one plan: what was observed, and the status and actions that the policies write into it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from trainmaster_api import names
from trainmaster_api.reasons import ConditionType, FailureClass, Reason
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.status import AttemptStatus, Condition, Status

from .actions import Action, DeletePod
from .format import format_time, parse_time
from .snapshot import PodView, Snapshot

# A pod that is still there so long after its grace period has a kubelet that doesn't answer.
OVERDUE_SECONDS = 30
# For pods that have nothing left to save.
SHORT_GRACE_SECONDS = 10
KEPT_ATTEMPTS = 10

WhyNot = Reason | FailureClass

_ORDER = {item.value: index for index, item in enumerate(ConditionType)}
_CLASSES = {item.value for item in FailureClass}


@dataclass(slots=True)
class PlanContext:
    """One plan in the making.

    Attributes:
        now: the caller's clock, but never before a time that the written status holds: times don't go back.
        old: the status as written.
        status: the status as it shall be.
        pods: pods that belong to this very job; the others with its label are `foreign`.
        refused: this plan found pods refused, or gave pods back: creating pods has to wait a while from now.
    """

    snapshot: Snapshot
    now: datetime
    old: Status
    status: Status
    pods: tuple[PodView, ...]
    foreign: tuple[PodView, ...]
    actions: list[Action] = field(default_factory=list)
    wake: float | None = None
    refused: bool = False

    @classmethod
    def of(cls, snapshot: Snapshot, now: datetime) -> PlanContext:
        """Return the context with which a plan begins."""
        old = read_status(snapshot.raw.get("status") or {})
        ours = tuple(pod for pod in snapshot.pods if pod.owner_uid == snapshot.uid)
        others = tuple(pod for pod in snapshot.pods if pod.owner_uid != snapshot.uid)
        generation = int(snapshot.raw["metadata"].get("generation") or 0)
        status = old.model_copy(update={"observed_generation": generation})
        latest = max([now, *_written_times(old)]).replace(microsecond=0)
        return cls(snapshot, max(now, latest), old, status, ours, others)

    # -- what was observed ------------------------------------------------------------------------------------------
    @property
    def job(self) -> TrainingJob:
        """The resolved job. Only policies after `accept` may ask for it."""
        job = self.snapshot.job
        assert job is not None
        return job

    @property
    def current(self) -> tuple[PodView, ...]:
        """Pods of the newest attempt."""
        return tuple(pod for pod in self.pods if pod.attempt == self.status.attempt)

    @property
    def head(self) -> PodView | None:
        """Head pod of the newest attempt."""
        return next((pod for pod in self.current if pod.role == names.ROLE_HEAD), None)

    @property
    def workers(self) -> dict[int, PodView]:
        """Worker pods of the newest attempt by index."""
        found = (pod for pod in self.current if pod.role == names.ROLE_WORKER and pod.index is not None)
        return {pod.index: pod for pod in found if pod.index is not None}

    @property
    def record(self) -> AttemptStatus | None:
        """The newest attempt's entry."""
        return self.find(self.status, self.status.attempt)

    @property
    def live(self) -> AttemptStatus | None:
        """The newest attempt's entry, unless it has ended."""
        return self.record if self.record and self.record.end_time is None else None

    @property
    def written(self) -> AttemptStatus | None:
        """The newest attempt's entry in the written status: then all its pods were created once."""
        return self.find(self.old, self.status.attempt)

    @staticmethod
    def find(status: Status, attempt: int) -> AttemptStatus | None:
        """Return the entry of an attempt."""
        return next((record for record in status.attempts if record.attempt == attempt), None)

    @property
    def finished(self) -> bool:
        """Whether the job is Complete or Failed."""
        return self.holds(ConditionType.COMPLETE) or self.holds(ConditionType.FAILED)

    def overdue(self, pod: PodView) -> bool:
        """Return whether the pod should have been gone for so long that its node must be dead."""
        until = parse_time(pod.deleting)
        return until is not None and self.now >= until + timedelta(seconds=OVERDUE_SECONDS)

    def since(self, moment: str | None) -> float:
        """Return the seconds since a moment; 0 if there is none or it is in the future."""
        then = parse_time(moment)
        return max(0.0, (self.now - then).total_seconds()) if then else 0.0

    # -- what is written --------------------------------------------------------------------------------------------
    def set(self, **fields: Any) -> None:
        """Change fields of the status."""
        self.status = self.status.model_copy(update=fields)

    def amend(self, **fields: Any) -> None:
        """Change fields of the newest attempt's entry."""
        records = [
            record.model_copy(update=fields) if record.attempt == self.status.attempt else record
            for record in self.status.attempts
        ]
        self.set(attempts=records)

    def condition(self, kind: ConditionType) -> Condition | None:
        """Return a condition as this plan has it so far."""
        return next((item for item in self.status.conditions if item.type == kind), None)

    def holds(self, kind: ConditionType) -> bool:
        """Return whether a condition is True."""
        found = self.condition(kind)
        return found is not None and found.status == "True"

    def reason(self, kind: ConditionType) -> str:
        """Return the reason of a condition; empty if there is none."""
        found = self.condition(kind)
        return found.reason if found else ""

    def set_condition(self, kind: ConditionType, holds: bool, reason: WhyNot, message: str = "") -> None:
        """Set a condition. Its transition time moves only when its status does."""
        before = self.condition(kind)
        status = "True" if holds else "False"
        same = before is not None and before.status == status
        after = Condition(
            type=kind.value,
            status="True" if holds else "False",
            observed_generation=self.status.observed_generation,
            last_transition_time=before.last_transition_time if same and before else format_time(self.now),
            reason=reason.value,
            message=message,
        )
        others = [item for item in self.status.conditions if item.type != kind]
        self.set(conditions=sorted([*others, after], key=lambda item: _ORDER[item.type]))

    def act(self, action: Action) -> None:
        """Ask for something, once."""
        if action not in self.actions:
            self.actions.append(action)

    def delete(self, pod: PodView, grace: int | None = SHORT_GRACE_SECONDS) -> None:
        """Delete a pod unless it is being deleted already."""
        if not pod.deleting:
            self.act(DeletePod(pod.name, pod.uid, grace))

    def wake_in(self, seconds: float) -> None:
        """Reconcile again after some time, at the latest."""
        seconds = max(0.0, seconds)
        self.wake = seconds if self.wake is None else min(self.wake, seconds)

    def wake_at(self, moment: datetime) -> None:
        """Reconcile again at a moment, at the latest."""
        self.wake_in((moment - self.now).total_seconds())


def read_status(raw: dict[str, Any]) -> Status:
    """Read a status, also of another version: fields and values that this version doesn't know are dropped."""
    data = {key: value for key, value in raw.items() if key not in ("phase", "reason")}
    data["conditions"] = [item for item in raw.get("conditions") or () if item.get("type") in _ORDER]
    data["attempts"] = [
        {key: value for key, value in record.items() if key != "failureClass" or value in _CLASSES}
        for record in raw.get("attempts") or ()
    ]
    return Status.model_validate(data, extra="ignore")


def _written_times(status: Status) -> list[datetime]:
    """Return the times that the operator's own clock has written."""
    texts = [status.start_time, status.completion_time]
    texts += [item.last_transition_time for item in status.conditions]
    texts += [text for record in status.attempts for text in (record.start_time, record.end_time)]
    return [moment for moment in map(parse_time, texts) if moment]
