"""What a trial of a search costs beyond its work, beside plain Ray Tune and Optuna alone."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
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
ABOUT = f"""\
{TRIALS} trials of a second of sleep, {AT_A_TIME} at a time with one worker and one at a time with two. In Trainmaster's
arm a trial is a whole training: data and model are built, a step is made, the model is validated, and the journal is
written; in the others it is the second alone and one report. Each trial notes when its work begins and ends. The
overhead is the time of a slot in which no work is done, from the first trial's begin to the last one's end, for each
trial but the first ones. Memory is the proportional set size of the actor that leads a trial, without its ranks: on a
cluster it is on the head.
"""
Taken = dict[str, dict[int, list[float]]]


def run(repeats: int, *, quick: bool) -> Result:
    """Every arm in turn."""
    trials = QUICK_TRIALS if quick else TRIALS
    taken: Taken = {arm: {workers: [] for workers, arms in COUNTS.items() if arm in arms} for arm in ARMS}
    memory: list[float] = []
    for _ in range(repeats):
        for workers, arms in COUNTS.items():
            for arm in arms:
                seconds, mib = measure(arm, workers, trials)
                taken[arm][workers].append(seconds)
                memory += [mib] if arm == "trainmaster" else []
                print(f"tune, {arm}, {workers} workers: {seconds:.2f} s a trial", file=sys.stderr, flush=True)
    return result(taken, memory)


def measure(arm: str, workers: int, trials: int) -> tuple[float, float]:
    """Return the overhead of a trial in seconds, and the memory of what leads one in MiB."""
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
        pairs = sorted((float(began), float(ended)) for began, ended in map(str.split, times.read_text().splitlines()))
    return overhead(pairs, AT_A_TIME // workers), most[0]


def overhead(pairs: list[tuple[float, float]], slots: int) -> float:
    """Return the seconds of a slot without work for each trial but the first of each slot.

    Args:
        pairs: When the work of each trial began and ended, sorted.
        slots: Trials at a time.
    """
    whole = pairs[-1][1] - pairs[0][0]
    worked = sum(ended - began for began, ended in pairs)
    return (slots * whole - worked) / (len(pairs) - slots)


def _look(process: subprocess.Popen[bytes], most: list[float]) -> None:
    while True:
        try:
            process.wait(_LOOK_SECONDS)
            return
        except subprocess.TimeoutExpired:
            most[0] = max([most[0], *_leaders(process.pid)])


def _leaders(pid: int) -> list[float]:
    """Return the memory of each actor of ours that leads trials, in MiB."""
    found = []
    for each in descendants(pid):
        try:
            title = Path(f"/proc/{each}/cmdline").read_text()
            if title.startswith("ray::") and ("Trial" in title or "Implicit" in title):
                pss = re.search(r"^Pss:\s+(\d+) kB$", Path(f"/proc/{each}/smaps_rollup").read_text(), re.MULTILINE)
                found.append(int(pss[1]) / 1024 if pss else 0.0)
        except OSError:
            continue
    return found


def result(taken: Taken, memory: list[float]) -> Result:
    """Table and bars from what was measured."""
    rows, bars = [], []
    for arm, by_workers in taken.items():
        for workers, seconds in by_workers.items():
            rows.append([NAMES[arm], str(workers), spread(seconds, 2)])
    for workers in COUNTS:
        ours, theirs = taken["trainmaster"][workers], taken["torchtrainer"][workers]
        middle, share = sorted(ours)[len(ours) // 2], ratio(ours, theirs)
        words = f"overhead of a trial of {workers} worker{'s' if workers > 1 else ''}"
        bars.append(Bar(words, f"<= {_MOST} s", f"{spread(ours, 2)} s", middle <= _MOST))
        bars.append(
            Bar(
                f"{words}, of a TorchTrainer's", f"<= {_OF_TORCHTRAINER}x", str(share), share.median <= _OF_TORCHTRAINER
            )
        )
    bars.append(Bar("memory of what leads a trial", f"<= {_MOST_MIB} MiB", f"{spread(memory, 0)} MiB",
                    max(memory) <= _MOST_MIB))  # fmt: skip
    samples: dict[str, Any] = {"seconds": taken, "memory": memory}
    columns = ["arm", "workers of a trial", "overhead of a trial, s"]
    return Result("tune", "Trials of a search", ABOUT, [Table(columns, rows)], bars, samples)
