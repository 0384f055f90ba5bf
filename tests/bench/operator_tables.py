"""Tables and bars of the operator benchmark. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.bench.result import Bar, Result, Table
from tests.bench.stats import Ratio, ratio, spread

FLOOR, TUNED, OURS = "floor", "KubeRay 1.6.0 tuned", "Trainmaster"
WALL_LIMIT, WRITES_LIMIT, BED_LIMIT_MS = 0.7, 9.0, 150.0


@dataclass
class Run:
    """Figures of one arm at one size."""

    jobs: int
    wall: float
    """Seconds from the first create to the last job ready."""
    p50: float
    p99: float
    """Seconds from a job's create to its ready."""
    bed_cpu: float
    """CPU seconds of every process of the bed, the operator's among them; the client's are not."""
    cpu: float = 0.0
    """CPU seconds of the operator."""
    peak: int = 0
    """Most memory of the operator, bytes."""
    writes: dict[str, int] = field(default_factory=dict)
    """Writes of the operator by verb and kind until it came to rest."""
    late: int = 0
    """Those of them that came after the last job was ready."""
    idle: dict[str, int] = field(default_factory=dict)
    """Writes in the idle window that followed."""


Runs = dict[str, list[Run]]
ABOUT = """\
One control plane per run (etcd, kube-apiserver, controller-manager, scheduler; {nodes} kwok nodes whose pods turn
Ready by themselves), fresh each time and idle for 3 s before it starts. A plain client creates the jobs, a head and
three workers each, at 100 per second and sees by one watch when each is ready: `Provisioned` for a TrainingJob,
`ready` for a RayCluster, all four pods for the floor, where the client makes the pods itself. Delays are on the
client's clock, from sending the create. Bed CPU is that of all these processes with the operator, without the client.
Writes are those of the operator's identity in the audit log, from the first create until 15 s after the last job was
ready, so that what is put off counts too; events and refused requests are among them, leader election is not.
KubeRay runs with its defaults, and tuned to concurrency 10, 500 requests/s and bursts of 1,000. The idle window is the
{idle:.0f} s after that.
"""


def result(taken: dict[int, Runs], nodes: int, idle: float, samples: dict[str, Any]) -> Result:
    """Everything that is printed."""
    tables = [table for size, by in taken.items() for table in (_figures(size, by), _writes(size, by))]
    largest = max(taken)
    return Result(
        name="operator",
        title="Operator: from create to provisioned",
        about=ABOUT.format(nodes=nodes, idle=idle),
        tables=tables,
        bars=bars(taken[largest], largest),
        samples=samples,
    )


def _figures(size: int, by: Runs) -> Table:
    columns = ["", "all ready s", "p50 s", "p99 s", "pods/s", "bed CPU ms/job", "operator CPU s", "operator peak MiB"]
    columns += ["writes/job", "writes when idle"]
    rows = []
    for name, runs in by.items():
        own = bool(runs[0].peak)
        cells = [
            spread([r.wall for r in runs]),
            spread([r.p50 for r in runs]),
            spread([r.p99 for r in runs]),
            spread([r.jobs * 4 / r.wall for r in runs], 0),
            spread([_bed_ms(r) for r in runs], 0),
        ]
        cells += [spread([r.cpu for r in runs]), spread([_peak(r) for r in runs], 0)] if own else ["", ""]
        cells += [spread([_per_job(r) for r in runs]), spread([float(_idle(r)) for r in runs], 0)] if own else ["", ""]
        rows.append([name, *cells])
    return Table(columns, rows, f"{size:,} jobs")


def _writes(size: int, by: Runs) -> Table:
    operators = {name: runs for name, runs in by.items() if runs[0].peak}
    counts = {name: Counter[str]() for name in operators}
    for name, runs in operators.items():
        for found in runs:
            counts[name].update(found.writes)
    kinds = sorted({kind for counted in counts.values() for kind in counted})
    jobs = {name: sum(r.jobs for r in runs) for name, runs in operators.items()}
    rows = [[kind, *(f"{counts[name][kind] / jobs[name]:.2f}" for name in operators)] for kind in kinds]
    late = {name: sum(r.late for r in runs) / jobs[name] for name, runs in operators.items()}
    rows.append(["of these after the last was ready", *(f"{late[name]:.2f}" for name in operators)])
    return Table(["writes per job", *operators], rows, f"{size:,} jobs: writes by verb and kind")


def bars(by: Runs, size: int) -> list[Bar]:
    """What the operator must hold against tuned KubeRay in the same run."""
    ours, tuned = by[OURS], by[TUNED]

    def against(what: str, value: Callable[[Run], float], limit: float) -> Bar:
        found: Ratio = ratio([value(r) for r in ours], [value(r) for r in tuned])
        text = f"at most {limit}x" if limit < 1 else "under 1.0x"
        passed = found.median <= limit if limit < 1 else found.median < 1
        return Bar(f"{what} at {size:,} jobs, against tuned KubeRay", text, str(found), passed)

    writes = statistics.median(_per_job(r) for r in ours)
    bed = statistics.median(_bed_ms(r) for r in ours)
    idle = max(_idle(r) for r in ours)
    return [
        against("time until all are ready", lambda r: r.wall, WALL_LIMIT),
        against("operator CPU", lambda r: r.cpu, 1.0),
        against("operator peak memory", lambda r: float(r.peak), 1.0),
        Bar(
            "writes per job until provisioned and at rest",
            f"at most {WRITES_LIMIT:.0f}",
            f"{writes:.2f}",
            writes <= WRITES_LIMIT,
        ),
        Bar("CPU of the whole bed per job", f"under {BED_LIMIT_MS:.0f} ms", f"{bed:.0f} ms", bed < BED_LIMIT_MS),
        Bar("writes for converged jobs in the idle window", "0", f"{idle}", idle == 0),
    ]


def _per_job(found: Run) -> float:
    return sum(found.writes.values()) / found.jobs


def _idle(found: Run) -> int:
    return sum(found.idle.values())


def _bed_ms(found: Run) -> float:
    return 1000 * found.bed_cpu / found.jobs


def _peak(found: Run) -> float:
    return found.peak / 2**20
