"""Rows and images per second beside what people use today, the memory, and the time to resume."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.bench_step import environment
from tests.bench.data_arms import BATCH, COLUMNS, EPOCHS, SIDE, WORKERS, make_images, make_table
from tests.bench.result import ROOT, Bar, Result, Table
from tests.bench.stats import ratio, spread

COUNTS, QUICK_COUNTS = {"images": 3000, "table": 100_000, "resume": 10_000_000}, {
    "images": 200, "table": 20_000, "resume": 200_000
}  # fmt: skip
KINDS = {
    "images": ["ours-images", "image-folder", "datasets-images"],
    "table": ["ours-table", "tensor-dataset", "datasets-table", "pandas-table"],
}
RESUMES = ["ours-resume", "skipping-resume"]
RESUME_LIMIT = 0.1
_LABELS = {
    "ours-images": "Trainmaster, images:<folder>",
    "image-folder": "DataLoader over ImageFolder",
    "datasets-images": "DataLoader over HF datasets' imagefolder",
    "ours-table": "Trainmaster, a table",
    "tensor-dataset": "DataLoader over a TensorDataset, whole batches",
    "datasets-table": "DataLoader over HF datasets, whole batches",
    "pandas-table": "pandas in memory, take",
    "ours-resume": "Trainmaster",
    "skipping-resume": "DataLoader over a TensorDataset that skips",
}
_ABOUT = f"""
Images: {COUNTS["images"]:,} JPEG files of 256 x 256 pixels, decoded and resized to {SIDE} x {SIDE} by Pillow in
{WORKERS} worker processes in every arm, batches of {BATCH}, {EPOCHS} epochs; nothing trains, so loading is all that is
measured. Trainmaster keeps decoded pixels, the others decode again in each epoch. Tables: {COUNTS["table"]:,} rows of
{COLUMNS} numbers in a Parquet file, shuffled, batches of {BATCH}. "Ready" is the time from the start until batches can
be asked for: Trainmaster's has the roles, checks, split and statistics of all rows in it. Memory is the peak of the
process that trains, with what it shares. Every run is a process of its own, the arms run in turns.
"""


def run(repeats: int, *, quick: bool) -> Result:
    """All arms in turns."""
    counts = QUICK_COUNTS if quick else COUNTS
    taken: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="trainmaster-bench-") as folder:
        make_images(Path(folder), counts["images"])
        make_table(Path(folder), counts["table"])
        for turn in range(repeats):
            for arms in (*KINDS.values(), RESUMES):
                for arm in arms if turn % 2 == 0 else arms[::-1]:
                    place = str(counts["resume"]) if arm in RESUMES else folder
                    found = measure(arm, place)
                    taken.setdefault(arm, []).append(found)
                    print(f"data, round {turn + 1}, {arm}: {found}", file=sys.stderr, flush=True)
    return result(taken, counts["resume"])


def measure(arm: str, place: str) -> dict[str, float]:
    """One arm in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.data_arms", arm, place]
    done = subprocess.run(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def result(taken: dict[str, list[dict[str, float]]], resumed: int) -> Result:
    """Figures from the rounds of each arm."""

    def of(arm: str, key: str) -> list[float]:
        return [found[key] for found in taken[arm]]

    tables, bars = [], []
    for kind, (ours, *peers) in KINDS.items():
        unit = "images" if kind == "images" else "rows"
        rows = [
            [
                _LABELS[arm],
                spread(of(arm, "first"), 0),
                spread(of(arm, "later"), 0),
                "" if arm == ours else str(ratio(of(ours, "first"), of(arm, "first"))),
                "" if arm == ours else str(ratio(of(ours, "later"), of(arm, "later"))),
                spread(of(arm, "ready"), 2),
                spread(of(arm, "mib"), 0),
            ]
            for arm in (ours, *peers)
        ]
        head = [f"{unit} per second", "first epoch", "later epochs", "Trainmaster / it, first", "the same, later"]
        tables.append(Table([*head, "ready, s", "memory, MiB"], rows, kind))
        for when in ("first", "later"):
            slowest = min((ratio(of(ours, when), of(peer, when)) for peer in peers), key=lambda found: found.median)
            words = f"{unit} per second, {when} epoch{'s' if when == 'later' else ''}, beside the fastest other"
            bars.append(Bar(words, "ratio >= 1.0", str(slowest), slowest.median >= 1.0))
    seconds = of("ours-resume", "seconds")
    rows = [[_LABELS[arm], spread(of(arm, "seconds"), 3)] for arm in RESUMES]
    tables.append(Table([f"seconds to the batch at 90 % of {resumed:,} rows", "s"], rows, "resume"))
    bars.append(
        Bar("resume at 90 % of an epoch", f"<= {RESUME_LIMIT} s", spread(seconds, 3), max(seconds) <= RESUME_LIMIT)
    )
    return Result("data", "Reading data", _ABOUT.strip(), tables, bars, dict(taken))
