"""What our loop costs per step, beside a plain PyTorch loop and the bare arithmetic."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

from tests.bench.result import ROOT, Bar, Result, Table
from tests.bench.stats import ratio, spread
from tests.bench.step_arms import ARMS

STEPS, QUICK_STEPS = 6000, 1000
PAIRS_PER_REPEAT = 5
LIMIT = 1.0
_LABELS = {
    "ours": "Trainmaster, everything on",
    "ours-saving": "the same, a checkpoint every second",
    "plain": "plain PyTorch loop",
    "floor": "the bare arithmetic",
}
_ABOUT = f"""
A step of an MLP (64-128-10, batch 32, AdamW, clipped gradients, cosine schedule) on the digits, fp32, one thread.
Trainmaster's arm is `fit` as a job runs it: check for non-finite gradients, metrics.jsonl, control points twice a
second, checkpoints at their default; it is charged for its last validation too. The plain loop is what the tutorials
write: DataLoader over a TensorDataset, `torch.optim.AdamW`, `clip_grad_norm_`, a schedule, `loss.item()` every 50
steps. The bare arithmetic has indexed batches, the fused optimizer and clipping, and nothing else. Every run is a
process of its own with {STEPS:,} steps, of which the first tenth isn't counted; the arms run in turns. Processor time
is that of all threads of the process: where other work shares the machine, it is the steadier of the two figures.
"""


def run(repeats: int, *, quick: bool) -> Result:
    """All arms in turns; a repeat is five rounds, because a round takes seconds."""
    steps = QUICK_STEPS if quick else STEPS
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in ARMS}
    for turn in range(1 if quick else repeats * PAIRS_PER_REPEAT):
        order = list(ARMS)
        # there and back again: who comes first is not always the same
        for name in order if turn % 2 == 0 else order[::-1]:
            taken[name].append(measure(name, steps))
            print(f"step, round {turn + 1}, {name}: {taken[name][-1]['ms']:.3f} ms", file=sys.stderr, flush=True)
    return result(taken)


def measure(arm: str, steps: int) -> dict[str, float]:
    """One arm in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.step_arms", arm, str(steps)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def result(taken: dict[str, list[dict[str, float]]]) -> Result:
    """Figures from the rounds of each arm."""
    wall = {name: [found["ms"] for found in rounds] for name, rounds in taken.items()}
    cpu = {name: [found["cpu_ms"] for found in rounds] for name, rounds in taken.items()}
    rows = [
        [
            _LABELS[name],
            spread(wall[name], 3),
            spread(cpu[name], 3),
            "" if name == "plain" else str(ratio(wall[name], wall["plain"])),
            "" if name == "plain" else str(ratio(cpu[name], cpu["plain"])),
            f"{statistics.median(found['accuracy'] for found in rounds):.3f}",
        ]
        for name, rounds in taken.items()
    ]
    over = statistics.median(a - b for a, b in zip(cpu["ours"], cpu["floor"], strict=True)) * 1000
    saves = statistics.median(found["saves"] for found in taken["ours-saving"])
    extra = (
        f"Over the bare arithmetic a step costs {over:.0f} µs of processor time. "
        f"The arm that saves every second made {saves:.0f} checkpoints in the steps that count."
    )
    columns = ["arm", "ms per step", "processor ms", "ratio to the plain loop", "the same, processor", "test accuracy"]
    bars = [
        Bar(f"a step takes no longer than in a plain loop, {what}", f"ratio <= {LIMIT}", str(tax), tax.median <= LIMIT)
        for what, tax in (
            ("on the wall", ratio(wall["ours"], wall["plain"])),
            ("in processor time", ratio(cpu["ours"], cpu["plain"])),
        )
    ]
    return Result("step", "Cost of a step", f"{_ABOUT.strip()} {extra}", [Table(columns, rows)], bars, dict(taken))


def environment() -> dict[str, str]:
    """Return the environment of an arm: our packages on the path, one thread."""
    paths = [str(ROOT / part) for part in ("crds", "trainer")] + [str(ROOT)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
