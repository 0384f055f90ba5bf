"""Suspend saves and then stops; unsuspend resumes from exactly that step."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.e2e.conftest import Calm, make_fault_job, make_job, weights_digest
from tests.e2e.kube import Namespace, condition, holds, progress, status


def test_suspend_and_go_on(namespace: Namespace, calm: Calm, s3: Any) -> None:
    """Checkpoints by interval are off, so the only one is that of the stop."""
    name = "pause"
    namespace.apply(make_fault_job(name, checkpoint__every="100000step"))
    namespace.wait(name, lambda j: holds(j, "Running"), "running")
    asked = datetime.now(UTC)
    namespace.patch(name, {"spec": {"run": {"suspend": True}}})
    stopped = namespace.wait(name, lambda j: holds(j, "Suspended"), "suspended")
    assert namespace.pods(name) == {}
    saved = status(stopped)["lastCheckpoint"]
    assert datetime.fromisoformat(saved["time"].replace("Z", "+00:00")) >= asked.replace(microsecond=0)
    assert 0 < saved["step"] < progress(stopped)["totalSteps"]
    assert status(stopped)["phase"] == "Suspended"
    assert "startTime" not in status(stopped)

    namespace.patch(name, {"spec": {"run": {"suspend": False}}})
    resumed = namespace.wait(name, lambda j: holds(j, "Running") and status(j)["attempt"] == 2, "running again")
    assert condition(resumed, "Suspended")["status"] == "False"
    done = namespace.complete(name)
    second = next(a for a in status(done)["attempts"] if a["attempt"] == 2)
    assert second["resumedFromStep"] == saved["step"]
    assert second.get("lostSteps", 0) == 0
    assert status(done)["restarts"]["counted"] == 0
    assert weights_digest(s3, done) == calm.digest(s3)


def test_created_suspended_makes_no_pod(namespace: Namespace) -> None:
    namespace.apply(make_job("later", run__suspend=True))
    job = namespace.wait("later", lambda j: holds(j, "Suspended"), "suspended")
    assert namespace.pods("later") == {}
    assert status(job)["attempt"] == 0
