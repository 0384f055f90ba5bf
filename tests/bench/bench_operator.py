"""Operators side by side on a real control plane with fake nodes: how long, how much CPU, how many writes."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from testbed.control_plane import ControlPlane
from testbed.errors import BedError
from tests.bench import audit, operator_tables, proc
from tests.bench.arms import NAMESPACE, OPERATOR, Arm, arms
from tests.bench.client import TooSlowError, drive
from tests.bench.operator_tables import Run
from tests.bench.result import Result
from tests.bench.stats import percentile

SIZES = (100, 1000)
QUICK_SIZES = (100,)
NODES = 50
RATE = 100.0
PATIENCE = {100: 600.0, 1000: 1800.0}
# longer than a status may be held back, so that nothing due is taken for idle chatter
SETTLE_SECONDS = 15.0
IDLE_SECONDS = 30.0
# The garbage collector looks for new kinds every 30 s; before that it asks the API server for each child's owner.
DISCOVERY_SECONDS = 35.0
REST_SECONDS = 3.0
REST_TRIES = 40
REST_CPU = 0.15
# in MB: the audit log must not be rotated under us
WHOLE_LOG = "--audit-log-maxsize=10000"
PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")


def run(repeats: int, *, quick: bool) -> Result:
    """All arms in turns, each on a bed of its own."""
    sizes = QUICK_SIZES if quick else SIZES
    taken: dict[int, dict[str, list[Run]]] = {size: {name: [] for name in arms()} for size in sizes}
    for size in sizes:
        for repeat in range(repeats):
            order = list(arms().values())
            # there and back again: who comes first is not always the same
            for arm in order if repeat % 2 == 0 else order[::-1]:
                found = measure(arm, size)
                taken[size][arm.name].append(found)
                _say(f"{size} jobs, {repeat + 1}/{repeats}, {arm.name}: {_line(found)}")
    samples = {str(size): {name: [asdict(r) for r in runs] for name, runs in by.items()} for size, by in taken.items()}
    return operator_tables.result(taken, NODES, IDLE_SECONDS, samples)


def measure(arm: Arm, jobs: int) -> Run:
    """One arm on a fresh bed."""
    with tempfile.TemporaryDirectory(prefix="trainmaster-bench-") as folder:
        log = Path(folder) / "audit.log"
        plane = ControlPlane(with_controller_manager=True, kwok_nodes=NODES, audit_log=log, apiserver_flags=[WHOLE_LOG])
        with plane:
            try:
                plane.kubectl("create", "namespace", NAMESPACE)
                arm.prepare(plane)
                arm.start(plane)
                time.sleep(DISCOVERY_SECONDS if arm.user else 0)
                _rest(plane)
                return _measure(plane, arm, jobs, log)
            finally:
                plane.processes.stop(OPERATOR, patience=0)


def _measure(plane: ControlPlane, arm: Arm, jobs: int, log: Path) -> Run:
    pids = {name: plane.pid(name) for name in (*PARTS, *([OPERATOR] if arm.user else []))}
    bed_before = proc.total_cpu_seconds(pids.values())
    own_before = proc.cpu_seconds(pids[OPERATOR]) if arm.user else 0.0
    try:
        timing = asyncio.run(drive(plane, arm.workload, jobs, RATE, PATIENCE[jobs]))
    except TooSlowError as error:
        raise BedError(f"{arm.name}: {error}\n{_last_words(plane)}") from error
    found = Run(
        jobs=jobs,
        wall=timing.end - timing.begin,
        p50=statistics.median(timing.delays),
        p99=percentile(timing.delays, 0.99),
        bed_cpu=proc.total_cpu_seconds(pids.values()) - bed_before,
    )
    if arm.user:
        found.cpu = proc.cpu_seconds(pids[OPERATOR]) - own_before
        _idle(arm, found, log, timing.begin, timing.end)
        found.peak = proc.peak_bytes(pids[OPERATOR])
    return found


def _idle(arm: Arm, found: Run, log: Path, begin: float, end: float) -> None:
    """Let the operator come to rest, then see whether it writes although nothing happens."""
    time.sleep(SETTLE_SECONDS)
    quiet = time.time()
    time.sleep(IDLE_SECONDS)
    writes = audit.read(log, arm.user)
    found.writes = dict(audit.count(writes, begin, quiet))
    found.late = sum(audit.count(writes, end, quiet).values())
    found.idle = dict(audit.count(writes, quiet, time.time()))


def _rest(plane: ControlPlane) -> None:
    """Wait until the bed has nothing left to do: a new custom resource keeps the API server busy for a while."""
    pids = [entry.pid for entry in plane.processes.all()]
    for _ in range(REST_TRIES):
        before = proc.total_cpu_seconds(pids)
        time.sleep(REST_SECONDS)
        if proc.total_cpu_seconds(pids) - before < REST_CPU * REST_SECONDS:
            return
    raise BedError(f"the bed did not come to rest within {REST_TRIES * REST_SECONDS:.0f} s")


def _last_words(plane: ControlPlane) -> str:
    """What the operator said last, when a run hangs."""
    operator = plane.processes.get(OPERATOR)
    return operator.last_lines() if operator else "(no operator in this arm)"


def _line(found: Run) -> str:
    writes = f", {sum(found.writes.values()) / found.jobs:.1f} writes each" if found.writes else ""
    return (
        f"{found.wall:.1f} s, p99 {found.p99:.1f} s, bed {1000 * found.bed_cpu / found.jobs:.0f} ms CPU each, "
        f"operator {found.cpu:.1f} s CPU and {found.peak / 2**20:.0f} MiB{writes}"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
