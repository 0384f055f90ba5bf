"""On a real cluster: from apply to the first step, by stage, and from a fault to the next step."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kubernetes.client import ApiException
from trainmaster_api import GROUP, PLURAL
from trainmaster_api.names import head_pod, worker_pod

from tests.bench.result import Result, Table, UnavailableError
from tests.bench.stats import spread
from tests.e2e.conftest import make_job, make_namespace
from tests.e2e.kube import Cluster, Json, Namespace, condition, holds, status

# Far more than a run gets to do here: it is deleted when it has been measured.
FOREVER = {"training__loop__duration": "5000ep", "checkpoint__every": "200step", "run__stopGraceSeconds": 5}
STEPS_BEFORE = 400
PATIENCE = 300.0
STAGES = {
    "scheduledSeconds": "every pod has a node",
    "startedSeconds": "every container runs",
    "rayReadySeconds": "every worker has joined Ray",
    "loadedSeconds": "framework, data and model are loaded",
    "firstStepSeconds": "the first step is done",
}
ABOUT = """\
The digits example with two workers on the cluster of `KUBECONFIG` (the test bed: two nodes on the same cores), one job
at a time. Stages are the job's own timings, each from the end of the one before; the sum is on the client's clock, from
`kubectl apply` to the moment when a watch sees `Running`, which is set by the first step. A fault is timed on the same
clock from the kill to the moment when the watch sees the job `Running` again, so both hold the delay of the report.
Checkpoints are written every 200 steps; what came after the last one is done twice and is counted as lost.
"""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, and how it is done."""

    name: str
    strike: Callable[[Namespace, str], object]


FAULTS = [
    Fault("training process killed (SIGKILL)", lambda ns, job: ns.kill_training_process(job, 1, 1)),
    Fault("worker pod deleted", lambda ns, job: ns.delete_pod(worker_pod(job, 1, 1))),
    Fault("head pod deleted", lambda ns, job: ns.delete_pod(head_pod(job, 1))),
]


@dataclass(frozen=True)
class Sample:
    """One job: how it started, and how it came back."""

    start: float
    """Seconds from apply to the first step."""
    stages: dict[str, float]
    recovery: float
    """Seconds from the fault to the next step."""
    lost_steps: int


def run(repeats: int, *, quick: bool) -> Result:
    """Each fault in turn, once where it is a quick run."""
    taken: dict[str, list[Sample]] = {fault.name: [] for fault in FAULTS}
    with bench_namespace() as namespace:
        for repeat in range(1 if quick else repeats):
            for index, fault in enumerate(FAULTS):
                found = _measure(namespace, f"r{repeat}-{index}", fault)
                taken[fault.name].append(found)
                print(f"{fault.name}: start {found.start:.1f} s, back after {found.recovery:.1f} s", file=sys.stderr)
    return result(taken)


def result(taken: dict[str, list[Sample]]) -> Result:
    """Tables of the samples."""
    samples = [sample for by in taken.values() for sample in by]
    rows = [[text, spread([s.stages[stage] for s in samples])] for stage, text in STAGES.items()]
    rows.append(["together, on the client's clock", spread([s.start for s in samples])])
    faults = [
        [name, spread([s.recovery for s in by]), f"{statistics.median(s.lost_steps for s in by):.0f}"]
        for name, by in taken.items()
    ]
    tables = [
        Table(["until", "seconds"], rows, f"From apply to the first step ({len(samples)} jobs)"),
        Table(["fault", "seconds", "steps done twice"], faults, "From a fault to the next step"),
    ]
    raw: dict[str, Any] = {name: [vars(sample) for sample in by] for name, by in taken.items()}
    return Result("recovery", "From apply to the first step, and back from a fault", ABOUT, tables, samples=raw)


def durations(timings: Json) -> dict[str, float]:
    """Seconds of each stage; the timings hold their ends, counted from the attempt's start.

    Raises:
        KeyError: a stage is missing.
    """
    found, before = {}, 0.0
    for stage in STAGES:
        found[stage], before = timings[stage] - before, timings[stage]
    return found


def is_back(before: Json, job: Json) -> bool:
    """Whether a job trains again after something that happened later than `before` was read."""

    def losses(seen: Json) -> tuple[int, int]:
        return status(seen)["attempt"], status(seen).get("restarts", {}).get("recoveries", 0)

    return losses(job) > losses(before) and condition(job, "Running").get("status") == "True"


def _measure(namespace: Namespace, name: str, fault: Fault) -> Sample:
    began = time.time()
    namespace.apply(make_job(name, **FOREVER))
    first = namespace.wait(name, trains, "training", PATIENCE)
    start = time.time() - began
    assert not holds(first, "Failed"), namespace.explain(name)
    before = namespace.at_step(name, STEPS_BEFORE, PATIENCE)
    stages = durations(
        status(first if "firstStepSeconds" in status(first).get("startupTimings", {}) else before)["startupTimings"]
    )
    fault.strike(namespace, name)
    # after it: to get into the pod takes a second, the kill itself nothing
    struck = time.time()
    after = namespace.wait(name, lambda job: is_back(before, job) or holds(job, "Failed"), "back", PATIENCE)
    recovery = time.time() - struck
    assert not holds(after, "Failed"), namespace.explain(name)
    namespace.cluster.kubectl("delete", "trainingjob", name, "-n", namespace.name)
    namespace.wait_no_pods(name)
    return Sample(start, stages, recovery, _lost(after) or 0)


def trains(job: Json) -> bool:
    """Whether a job has done its first step, or never will."""
    return holds(job, "Running") or holds(job, "Failed")


def _lost(job: Json) -> int | None:
    attempts = status(job).get("attempts", [])
    found: int | None = attempts[-1].get("lostSteps") if attempts else None
    return found


@contextmanager
def bench_namespace() -> Iterator[Namespace]:
    """A namespace in the cluster of `KUBECONFIG`.

    Raises:
        UnavailableError: There is none, or no operator in it.
    """
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        raise UnavailableError("KUBECONFIG names no cluster: `make cluster-up` prints the line to export")
    cluster = Cluster(kubeconfig)
    try:
        cluster.custom.list_cluster_custom_object(GROUP, "v1alpha1", PLURAL, limit=1)
    except ApiException as error:
        raise UnavailableError(f"no operator in this cluster ({error.reason}): install charts/trainmaster") from error
    made = make_namespace(cluster, "bench")
    namespace = next(made)
    try:
        yield namespace
    finally:
        next(made, None)
