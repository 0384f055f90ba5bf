"""Small builders for tests of the plan: a job, its pods, and what the trainer says."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from trainmaster_api import names
from trainmaster_api.messages import CheckpointRef, ExitCode, ExitMessage, Outcome, ProgressMessage, TrainerState
from trainmaster_api.reasons import FailureClass
from trainmaster_operator.manifests import resolve
from trainmaster_operator.policy.format import format_time
from trainmaster_operator.policy.plan import CreatePod, DeletePod, Plan, plan
from trainmaster_operator.policy.settings import Settings
from trainmaster_operator.policy.snapshot import Exit, PodView, Snapshot

from tests.factories import Json, make_job

T0 = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
SETTINGS = Settings(image="trainer:1", storage_uri="s3://runs/all")
NAME, UID = "digits", "uid-1"


def at(seconds: float) -> datetime:
    """A moment after the start of the test."""
    return T0 + timedelta(seconds=seconds)


def clock(seconds: float) -> str:
    return format_time(at(seconds))


def raw_job(**run: Any) -> Json:
    """A TrainingJob with two workers as the API serves it."""
    served = {"namespace": "team", "uid": UID, "generation": 1, "resourceVersion": "1", "creationTimestamp": clock(0)}
    return make_job(
        {f"metadata.{key}": value for key, value in served.items()},
        {
            "spec.storage": {"uri": "s3://runs/all", "credentialsSecret": "minio"},
            "spec.cluster.workers.count": 2,
            "spec.run": run,
        },
        name=NAME,
    )


def checkpoint(step: int, attempt: int = 1) -> CheckpointRef:
    return CheckpointRef(step=step, attempt=attempt, uri=f"s3://runs/a{attempt}-step-{step:07d}", time=clock(step))


def progress(attempt: int = 1, state: TrainerState = TrainerState.TRAINING, **fields: Any) -> ProgressMessage:
    data = {"namespace": "team", "name": NAME, "uid": UID, "attempt": attempt, "state": state, "time": clock(0)}
    return ProgressMessage(**{**data, **fields})


def said(outcome: Outcome, failure: FailureClass | None = None, **fields: Any) -> str:
    """A termination message."""
    return ExitMessage(outcome=outcome, failure_class=failure, **fields).encode()


def ended(code: int, message: str = "", reason: str = "", second: float = 0) -> Exit:
    return Exit(code, reason or ("Completed" if code == 0 else "Error"), message, clock(second))


def pod(role: str, attempt: int = 1, index: int | None = None, second: float = 0, **fields: Any) -> PodView:
    """A pod that runs and is ready, unless said otherwise."""
    if role == "head":
        name = names.head_pod(NAME, attempt)
    else:
        assert index is not None
        name = names.worker_pod(NAME, attempt, index)
    data = {
        "uid": f"{name}-uid",
        "name": name,
        "attempt": attempt,
        "role": role,
        "index": index,
        "owner_uid": UID,
        "created": clock(second),
        "phase": "Running",
        "ready": True,
        "node": "node-1",
        "scheduled_at": clock(second + 1),
        "started_at": clock(second + 2),
    }
    if fields.get("exit") is not None:
        data |= {"ready": False, "phase": "Succeeded" if fields["exit"].code == 0 else "Failed"}
    return PodView(**{**data, **fields})


def pods(attempt: int = 1, second: float = 0, **fields: Any) -> tuple[PodView, ...]:
    """Head and two workers."""
    return (
        pod("head", attempt, second=second, **fields),
        pod("worker", attempt, 0, second=second, **fields),
        pod("worker", attempt, 1, second=second, **fields),
    )


def pending(attempt: int = 1, second: float = 0, **fields: Any) -> tuple[PodView, ...]:
    """Head and two workers that the scheduler hasn't seen yet."""
    empty = {"phase": "Pending", "ready": False, "node": "", "scheduled_at": "", "started_at": ""}
    return pods(attempt, second, **{**empty, **fields})


def swap(found: tuple[PodView, ...], index: int, **fields: Any) -> tuple[PodView, ...]:
    """The same pods but for one: 0 is the head, 1 and 2 the workers."""
    changed = replace(found[index], **fields)
    if changed.exit is not None:
        changed = replace(changed, ready=False, phase="Succeeded" if changed.exit.code == 0 else "Failed")
    return (*found[:index], changed, *found[index + 1 :])


def failed(failure: FailureClass, **fields: Any) -> Exit:
    """The end of a container whose trainer named a failure."""
    return ended(ExitCode.FAILED, said(Outcome.FAILED, failure, message=f"It was {failure.value}.", **fields))


def head_failed(failure: FailureClass, **fields: Any) -> tuple[PodView, ...]:
    """The pods of attempt 1 with a head that named a failure."""
    return swap(pods(), 0, exit=failed(failure, **fields))


class Bench:
    """A job whose status is written after each plan, as the operator does; pods are what the test says."""

    def __init__(self, raw: dict[str, Any] | None = None, **run: Any) -> None:
        self.raw = raw or raw_job(**run)
        self.service = False
        self.refused_at: datetime | None = None
        self.last: Plan | None = None

    def snapshot(self, pods: tuple[PodView, ...] = (), **fields: Any) -> Snapshot:
        job, problems = resolve(self.raw, SETTINGS)
        data: dict[str, Any] = {
            "heads_service": self.service,
            "problems": problems,
            "pods": pods,
            "refused_at": self.refused_at,
        }
        return Snapshot(copy.deepcopy(self.raw), job, **{**data, **fields})

    def plan(self, second: float, pods: tuple[PodView, ...] = (), **fields: Any) -> Plan:
        """Plan and write the status."""
        if "progress" in fields:  # it has just arrived, unless said otherwise
            fields = {"progress_received": at(second), **fields}
        self.last = plan(self.snapshot(pods, **fields), at(second))
        self.refused_at = at(second) if self.last.refused else self.refused_at
        self.raw["status"] = self.last.status
        return self.last

    def settle(self, second: float, pods: tuple[PodView, ...] = (), **fields: Any) -> Plan:
        """Plan until the status stays; the last plan."""
        for _ in range(5):
            before = self.raw.get("status")
            found = self.plan(second, pods, **fields)
            if found.status == before:
                return found
        raise AssertionError("the status doesn't come to rest")

    def started(self, second: float = 0) -> Bench:
        """With the pods of attempt 1 created and written down."""
        self.plan(second)
        self.service = True
        return self

    def running(self, second: float = 10, step: int = 100, **fields: Any) -> Bench:
        """Training in attempt 1."""
        self.started()
        self.plan(second, pods(), progress=progress(step=step, total_steps=1000, **fields))
        return self

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.raw["status"]
        return found

    def condition(self, kind: str) -> dict[str, Any]:
        return next((item for item in self.status["conditions"] if item["type"] == kind), {})

    def is_true(self, kind: str) -> bool:
        return self.condition(kind).get("status") == "True"

    def reason(self, kind: str) -> str:
        return str(self.condition(kind).get("reason", ""))

    def message(self, kind: str) -> str:
        return str(self.condition(kind).get("message", ""))

    def record(self, attempt: int = 1) -> dict[str, Any]:
        return next(r for r in self.status["attempts"] if r["attempt"] == attempt)

    def suspend(self, wish: bool) -> None:
        self.raw["spec"]["run"]["suspend"] = wish


def created(found: Plan) -> list[str]:
    return [action.name for action in found.actions if isinstance(action, CreatePod)]


def deleted(found: Plan) -> list[str]:
    return [action.name for action in found.actions if isinstance(action, DeletePod)]
