"""What a trial of a search costs beyond its work, beside plain Ray Tune and Optuna alone."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainmaster_trainer.processes import descendants

from tests.bench.bench_step import environment
from tests.bench.result import ROOT, Bar, Result, Table
from tests.bench.stats import ratio, spread
from tests.bench.tune_arms import ARMS, AT_A_TIME

WORK = 1.0
TRIALS, QUICK_TRIALS = 12, 6
COUNTS = {1: tuple(ARMS), 2: ("trainmaster", "torchtrainer")}
"""Arms by the workers of a trial."""
NAMES = {
    "trainmaster": "Trainmaster",
    "function": "Ray Tune, a function",
    "reused": "Ray Tune, a function, actors kept",
    "torchtrainer": "Ray Tune, a TorchTrainer in each trial",
    "optuna": "Optuna alone, threads of one process",
}
_MOST, _OF_TORCHTRAINER, _MOST_MIB = 0.6, 0.1, 100
_LOOK_SECONDS = 0.5
_LEADERS = ("Trainable", "ImplicitFunc")
"""In the titles of the actors that lead a trial: Ray names them after the class of a trainable, which is Tune's."""
ABOUT = f"""\
{TRIALS} trials of a second of sleep by random search, {AT_A_TIME} at a time with one worker and one at a time with two.
In Trainmaster's arm a trial is a whole training: data and model are built, a step is made, the model is validated, and
the journal is written; in the others it is the second alone and one report. Each trial notes when its work begins and
ends. The overhead is the time of a slot in which no work is done, from the first trial's begin to the last one's end,
for each trial but the first ones. Memory is the proportional set size of the actor that leads a trial, without its
ranks: on a cluster it is on the head. Trials that have ended are counted after the same time from the first trial's
begin: that in which Trainmaster's run of that repeat has ended all of its own. What they would have found is computed,
because a few draws are chance: the share of all values that are better than the best of n drawn ones, 1 / (n + 1).
"""


@dataclass(frozen=True)
class Trial:
    """When the work of a trial began and ended."""

    began: float
    ended: float


@dataclass(frozen=True)
class Measured:
    """One run of an arm."""

    trials: list[Trial]
    """In the order in which they began."""
    slots: int
    """Trials at a time."""
    mib: float
    """Memory of an actor that leads trials; 0 where there is none."""

    @property
    def wall(self) -> float:
        """Seconds from the first trial's begin to the last one's end."""
        return max(each.ended for each in self.trials) - self.trials[0].began

    @property
    def overhead(self) -> float:
        """Seconds of a slot without work for each trial but the first of each slot."""
        worked = sum(each.ended - each.began for each in self.trials)
        return (self.slots * self.wall - worked) / (len(self.trials) - self.slots)

    def ended_after(self, seconds: float) -> int:
        """Return how many trials had ended so many seconds after the first one's begin."""
        end = self.trials[0].began + seconds + 1e-6  # floats add up differently
        return sum(each.ended <= end for each in self.trials)


Taken = dict[str, dict[int, list[Measured]]]


def run(repeats: int, *, quick: bool) -> Result:
    """Every arm in turn."""
    trials = QUICK_TRIALS if quick else TRIALS
    taken: Taken = {arm: {workers: [] for workers, arms in COUNTS.items() if arm in arms} for arm in ARMS}
    for _ in range(repeats):
        for workers, arms in COUNTS.items():
            for arm in arms:
                found = measure(arm, workers, trials)
                taken[arm][workers].append(found)
                print(
                    f"tune, {arm}, {workers} workers: {found.overhead:.2f} s a trial, {found.mib:.0f} MiB",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
    return result(taken)


def measure(arm: str, workers: int, trials: int) -> Measured:
    """Run an arm, and look at its actors' memory meanwhile."""
    with tempfile.TemporaryDirectory(prefix="trainmaster-bench-") as place:
        folder, times = Path(place), Path(place) / "times"
        noted = {**environment(), "BENCH_WORK": str(WORK), "BENCH_TIMES": str(times), "RAY_TRAIN_V2_ENABLED": "1"}
        command = [sys.executable, "-m", "tests.bench.tune_arms", arm, str(workers), str(trials), str(folder)]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=noted, stdout=log, stderr=log, start_new_session=True)
            most: list[float] = [0.0]
            looking = threading.Thread(target=_look, args=(process, most))
            looking.start()
            process.wait()
            looking.join()
        if process.returncode:
            raise RuntimeError(f"{arm} has failed:\n{(folder / 'log').read_text()[-3000:]}")
        ended = sorted(tuple(map(float, line.split())) for line in times.read_text().splitlines())
    if len(ended) != trials:
        raise RuntimeError(f"{arm}: {len(ended)} of {trials} trials have noted their work")
    return Measured([Trial(*each) for each in ended], AT_A_TIME // workers, most[0])


def _look(process: subprocess.Popen[bytes], most: list[float]) -> None:
    while True:
        try:
            process.wait(_LOOK_SECONDS)
            return
        except subprocess.TimeoutExpired:
            most[0] = max([most[0], *_leaders(process.pid)])


def _leaders(pid: int) -> list[float]:
    """Return the memory of each actor that leads trials, in MiB."""
    found = []
    for each in descendants(pid):
        try:
            title = Path(f"/proc/{each}/cmdline").read_text()
            if title.startswith("ray::") and any(name in title for name in _LEADERS):
                pss = re.search(r"^Pss:\s+(\d+) kB$", Path(f"/proc/{each}/smaps_rollup").read_text(), re.MULTILINE)
                found.append(int(pss[1]) / 1024 if pss else 0.0)
        except OSError:
            continue
    return found


def result(taken: Taken) -> Result:
    """Tables and bars from what was measured."""
    rows, equal, bars = [], [], []
    for arm, by_workers in taken.items():
        for workers, runs in by_workers.items():
            memory = [each.mib for each in runs if each.mib]
            seconds = spread([each.overhead for each in runs], 2)
            rows.append([NAMES[arm], str(workers), seconds, spread(memory, 0) if memory else ""])
            equal.append(_after_equal_time(arm, workers, runs, taken["trainmaster"][workers]))
    for workers in COUNTS:
        ours, theirs = ([each.overhead for each in taken[arm][workers]] for arm in ("trainmaster", "torchtrainer"))
        words, share = f"overhead of a trial of {workers} worker{'s' if workers > 1 else ''}", ratio(ours, theirs)
        bars.append(Bar(words, f"<= {_MOST} s", f"{spread(ours, 2)} s", statistics.median(ours) <= _MOST))
        limit = f"<= {_OF_TORCHTRAINER}x"
        bars.append(Bar(f"{words}, of a TorchTrainer's", limit, str(share), share.median <= _OF_TORCHTRAINER))
    memory = [each.mib for runs in taken["trainmaster"].values() for each in runs]
    passed = min(memory) > 0 and max(memory) <= _MOST_MIB
    bars.append(Bar("memory of what leads a trial", f"<= {_MOST_MIB} MiB", f"{spread(memory, 0)} MiB", passed))
    samples: dict[str, Any] = {
        arm: {workers: [[each.overhead, each.mib, each.wall] for each in runs] for workers, runs in by_workers.items()}
        for arm, by_workers in taken.items()
    }
    tables = [
        Table(["arm", "workers of a trial", "overhead of a trial, s", "what leads it, MiB"], rows),
        Table(
            ["arm", "workers of a trial", "trials that have ended", "better than their best, %"],
            equal,
            "After equal wall time",
        ),
    ]
    return Result("tune", "Trials of a search", ABOUT, tables, bars, samples)


def _after_equal_time(arm: str, workers: int, runs: list[Measured], ours: list[Measured]) -> list[str]:
    ended = [each.ended_after(of_ours.wall) for each, of_ours in zip(runs, ours, strict=True)]
    return [NAMES[arm], str(workers), spread(ended, 0), spread([100 / (each + 1) for each in ended])]
