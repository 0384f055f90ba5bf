"""The operator dies before or after each of its calls, once or twice, and the same comes of it."""

from __future__ import annotations

from typing import Any

import pytest
from trainmaster_api.messages import ExitCode, Outcome
from trainmaster_api.reasons import FailureClass

from .sim import Cluster, CrashError, Operator
from .wrappers import raw_job, said

DONE = said(Outcome.COMPLETE, step=1000)
LOST = said(Outcome.FAILED, FailureClass.STALLED, message="It stalled.")
STOPPED = said(Outcome.STOPPED, step=10)


def run_all(cluster: Cluster) -> None:
    for name in list(cluster.pods):
        cluster.run_pod(name)


def head_of(cluster: Cluster) -> str:
    return next(name for name in cluster.pods if name.endswith("-head") and not cluster.pods[name].ended)


def play(script: str, crashes: list[tuple[int, bool]]) -> tuple[Cluster, int]:
    """Drive a job through a script; the operator dies at the given calls of its successive lives.

    Returns:
        The cluster in the end, and the calls that the last life made.
    """
    cluster = Cluster(raw_job(retries={"max": 1}))
    operator = Operator(cluster)
    left = list(crashes)

    def arm() -> None:
        operator.crash_at, operator.before = left.pop(0) if left else (None, True)

    def settle() -> None:
        for _ in range(60):
            try:
                moved = operator.reconcile()
            except CrashError:
                operator.restart()
                arm()
                moved = True
            operator.catch_up()
            for name in [name for name, pod in cluster.pods.items() if pod.deleting]:
                if name.endswith("-head"):
                    cluster.end_pod(name, ExitCode.STOPPED, STOPPED)
                    operator.catch_up()
                    continue
                cluster.finish_delete(name)
            for name in [name for name, pod in cluster.pods.items() if pod.deleting and pod.ended]:
                cluster.finish_delete(name)
            operator.catch_up()
            if not moved:
                if operator.requeue is None or operator.requeue > 400:
                    return
                cluster.seconds += max(0.1, operator.requeue)
        raise AssertionError("no rest:\n" + "\n".join(cluster.trace[-40:]))

    arm()
    for step in script:
        settle()
        match step:
            case "r":
                run_all(cluster)
            case "l":
                cluster.end_pod(head_of(cluster), ExitCode.FAILED, LOST)
            case "c":
                cluster.end_pod(head_of(cluster), ExitCode.COMPLETE, DONE, "Completed")
            case "s":
                cluster.edit_spec(suspend=True)
            case "u":
                cluster.edit_spec(suspend=False)
            case "x":
                cluster.raise_duration(20)
        operator.catch_up()
        cluster.seconds += 1
    settle()
    return cluster, operator.calls


def outcome(cluster: Cluster) -> dict[str, Any]:
    """What must be the same whatever crashed: everything but times and UIDs."""
    status = cluster.status
    return {
        "pods": sorted((pod.name, pod.phase, bool(pod.deleting)) for pod in cluster.pods.values()),
        "phase": status["phase"],
        "conditions": [(c["type"], c["status"], c["reason"]) for c in status["conditions"]],
        "attempt": status["attempt"],
        "restarts": status["restarts"],
        "attempts": [(r["attempt"], r["result"], r.get("failureClass")) for r in status["attempts"]],
        "secret": cluster.secret,
        "service": cluster.heads_service,
    }


SCRIPTS = {
    "start": "",
    "complete": "rc",
    "retry-then-complete": "rlrc",
    "retries-used-up": "rlrl",
    "suspend": "rs",
    "suspend-and-resume": "rsurc",
    "suspend-while-pending": "su",
    "extend": "rxrc",
    "extend-while-pending": "xrc",
    "extend-when-complete": "rcxrc",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_one_crash_at_every_call(name: str) -> None:
    calm, calls = play(SCRIPTS[name], [])
    assert calls >= 6
    expected = outcome(calm)
    for call in range(1, calls + 1):
        for before in (True, False):
            found, _ = play(SCRIPTS[name], [(call, before)])
            assert outcome(found) == expected, f"crash {'before' if before else 'after'} call {call}"


@pytest.mark.parametrize("name", ["start", "retry-then-complete"])
def test_crash_twice(name: str) -> None:
    calm, calls = play(SCRIPTS[name], [])
    expected = outcome(calm)
    for first in range(1, calls + 1):
        for second in range(1, 8):
            found, _ = play(SCRIPTS[name], [(first, False), (second, second % 2 == 0)])
            assert outcome(found) == expected, f"crashes at call {first}, then {second}"


def test_no_more_calls_than_needed() -> None:
    """Secret, Service, three pods, and two writes: one with the pods' creation, one when all are ready."""
    _, calls = play("r", [])
    assert calls == 7
