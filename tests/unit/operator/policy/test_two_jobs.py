"""Two jobs of three pods in a namespace for four: one runs to its end, then the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from trainmaster_api import names
from trainmaster_api.messages import ExitCode, Outcome

from .sim import Cluster, Operator
from .wrappers import NAME, raw_job, said

TRAINING_SECONDS = 60.0
TICK = 0.5


class Job:
    """One of the jobs, with a kubelet that starts its pods within a second and needs two to end them."""

    def __init__(self, uid: str) -> None:
        raw = raw_job(retries={"max": 0})
        raw["metadata"]["uid"] = uid
        self.cluster = Cluster(raw)
        self.operator = Operator(self.cluster)
        self.due = 0.0
        self.trained = 0.0

    def live_pods(self) -> int:
        return sum(not pod.ended for pod in self.cluster.pods.values())

    def done(self) -> bool:
        return any(c["type"] == "Complete" and c["status"] == "True" for c in self.cluster.status.get("conditions", []))

    def failed(self) -> bool:
        return self.cluster.status.get("phase") == "Failed"

    def placed(self) -> int:
        return sum(bool(pod.node) and not pod.ended for pod in self.cluster.pods.values())

    def tick(self, second: float, others: int, nodes: int = 99) -> None:
        cluster = self.cluster
        cluster.seconds, cluster.foreign_pods = second, others
        before = dict(cluster.pods)
        for name, pod in before.items():
            if pod.deleting:
                cluster.finish_delete(name)
            elif not pod.ready and self.placed() < nodes:
                cluster.run_pod(name)
            elif not pod.ready:
                cluster.pods[name] = replace(pod, unschedulable="0/1 nodes are available: 1 Insufficient cpu.")
        ready = [pod for pod in cluster.pods.values() if pod.ready and not pod.deleting]
        self.trained = self.trained + TICK if len(ready) == 3 else 0.0
        if self.trained >= TRAINING_SECONDS:
            head = names.head_pod(NAME, cluster.status["attempt"])
            cluster.end_pod(head, ExitCode.COMPLETE, said(Outcome.COMPLETE, step=100), "Completed")
        if second >= self.due or cluster.pods != before:
            self.operator.catch_up()
            self.operator.reconcile()
            wait = self.operator.requeue
            self.due = second + (1e9 if wait is None else max(TICK, wait))


def play(*jobs: Job, seconds: float = 1500.0) -> float:
    """Return when all jobs are complete."""
    for job in jobs:
        job.cluster.quota = 4
    second = 0.0
    while not all(job.done() for job in jobs):
        second += TICK
        assert second < seconds, [job.cluster.trace[-12:] for job in jobs]
        # they share the API server: which of them is first in a tick changes
        for job in jobs if int(second / TICK) % 2 else reversed(jobs):
            job.tick(second, sum(other.live_pods() for other in jobs if other is not job))
            assert not job.failed()
    return second


def start_half(job: Job, pods: int) -> None:
    """As if the other had been refused the rest: the API server takes pods of two jobs in any order."""
    job.cluster.quota, job.cluster.foreign_pods = 4, 4 - pods
    job.operator.reconcile()
    assert job.live_pods() == pods


@pytest.mark.parametrize("number", range(40))
def test_two_half_started_jobs_both_come_to_their_end(number: int) -> None:
    jobs: tuple[Any, ...] = (Job(f"first-{number}"), Job(f"second-{number}"))
    for job in jobs:
        start_half(job, 2)
    play(*jobs)
    for job in jobs:
        assert job.cluster.status["restarts"] == {"total": 0, "counted": 0, "recoveries": 0}


def test_three_jobs_of_which_one_has_started() -> None:
    jobs = (Job("a"), Job("b"), Job("c"))
    start_half(jobs[0], 3)
    play(*jobs, seconds=3000.0)


@pytest.mark.parametrize("number", range(10))
def test_two_jobs_that_compete_for_nodes(number: int) -> None:
    """No quota: all pods are created, and four of the six find a node, two of each job at first."""
    jobs = (Job(f"a{number}"), Job(f"b{number}"))
    second = 0.0
    while not all(job.done() for job in jobs):
        second += TICK
        assert second < 3000, [job.cluster.trace[-12:] for job in jobs]
        for job in jobs:
            free = 4 - sum(other.placed() for other in jobs if other is not job)
            job.tick(second, 0, min(free, 2) if second < 10 else free)
    for job in jobs:
        assert job.cluster.status["restarts"] == {"total": 0, "counted": 0, "recoveries": 0}
