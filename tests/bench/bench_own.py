"""What a program of the user's own costs per step in a job, beside the same program started by torchrun."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.bench.bench_step import environment
from tests.bench.own_arms import ARMS, KINDS
from tests.bench.result import ROOT, Bar, Result, Table
from tests.bench.stats import ratio, spread

STEPS, QUICK_STEPS = 2000, 600
ROUNDS_PER_REPEAT = 4
LIMIT = {"script": 1.02, "lightning": 1.0, "transformers": 1.0}
_NAMES = {"script": "a loop of its own", "lightning": "Lightning", "transformers": "Transformers' Trainer"}
_LABELS = {"ours": "Trainmaster, `script`", "torchrun": "torchrun"}
_ABOUT = f"""
An ordinary program (MLP 784-256-10, batch 64, AdamW, one thread) that saves its checkpoints and times its own steps,
written as a loop, with Lightning and with Transformers' Trainer. In Trainmaster's arm it runs as the rank of a job runs
it: its steps are counted by the optimizer's global hook and reported, its folder is watched, its checkpoint files are
hashed and stored, and the Trainers are offered what saves and resumes them. Every run is a process of its own with
{STEPS:,} steps, of which the first tenth isn't counted; the arms run in turns.
"""
Taken = dict[str, dict[str, list[dict[str, float]]]]


def run(repeats: int, *, quick: bool) -> Result:
    """Each program in both arms, in turns."""
    steps = QUICK_STEPS if quick else STEPS
    taken: Taken = {kind: {arm: [] for arm in ARMS} for kind in KINDS}
    for turn in range(1 if quick else repeats * ROUNDS_PER_REPEAT):
        for kind, arms in taken.items():
            for arm in list(arms) if turn % 2 == 0 else list(arms)[::-1]:
                arms[arm].append(measure(arm, kind, steps))
                print(
                    f"own, round {turn + 1}, {kind}, {arm}: {arms[arm][-1]['ms']:.3f} ms", file=sys.stderr, flush=True
                )
    return result(taken)


def measure(arm: str, kind: str, steps: int) -> dict[str, float]:
    """One arm in a session of its own, as torchrun gives its ranks: the kernel weighs sessions against each other."""
    command = [sys.executable, "-m", "tests.bench.own_arms", arm, KINDS[kind], str(steps)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, check=True, start_new_session=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def result(taken: Taken) -> Result:
    """Figures from the rounds of each program."""
    rows, bars = [], []
    for kind, arms in taken.items():
        wall, processor = (
            {arm: [each[key] for each in found] for arm, found in arms.items()} for key in ("ms", "cpu_ms")
        )
        taxes = [ratio(each["ours"], each["torchrun"]) for each in (wall, processor)]
        for arm in arms:
            ratios = [""] * 2 if arm == "torchrun" else [str(tax) for tax in taxes]
            rows.append([f"{_NAMES[kind]}, {_LABELS[arm]}", spread(wall[arm], 3), spread(processor[arm], 3), *ratios])
        what = f"a step costs no more than started by torchrun: {_NAMES[kind]}, in processor time"
        tax, most = taxes[1], LIMIT[kind]
        bars.append(Bar(what, f"ratio <= {most}", str(tax), tax.median <= most))
    columns = ["arm", "ms per step", "processor ms", "ratio to torchrun", "the same, processor"]
    return Result("own", "Programs of one's own", _ABOUT.strip(), [Table(columns, rows)], bars, dict(taken))
