"""Rows larger than memory: trained on under a limit that other readers are measured at too."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.bench.bench_step import environment
from tests.bench.larger_arms import BATCH, CACHE, DOUBLES, FLOATS, KINDS, SECONDS, SOURCE, THEIRS, make_rows
from tests.bench.limit import Ended, forget, run_limited
from tests.bench.result import Bar, Result, Table, UnavailableError
from tests.bench.stats import ratio, spread

GB, QUICK_GB, QUICK_LIMIT = 20.0, 0.2, 600 << 20
LIMIT, PEER_GB, QUICK_PEER_GB = 2 << 30, 4.0, 0.1
STEPS, QUICK_STEPS = 2000, 100
WITHOUT_LIMIT = 1 << 50
PATIENCE = 300.0  # for a reader that is to read for some seconds
DISK_SHARE = 2.3  # of the decoded rows: the source, and the cache twice while it is built
FILES = "pages of files count too, and are dropped when there is no room"
_MIB, _GB = 2**20, 1e9


def run(repeats: int, *, quick: bool, gb: float | None = None) -> Result:
    """Train on the large table, then read a smaller one in turns with the peers.

    Args:
        repeats: Rounds of the readers of the smaller table; what is large is done once.
        quick: Small.
        gb: Size of the large table, decoded; the memory is a tenth of it, and LIMIT at most.

    Raises:
        UnavailableError: The disk is too small.
    """
    gb = gb or (QUICK_GB if quick else GB)
    most = QUICK_LIMIT if quick else max(QUICK_LIMIT, min(LIMIT, int(LIMIT * gb / GB)))
    peer_gb = QUICK_PEER_GB if quick else min(PEER_GB, gb)
    steps = QUICK_STEPS if quick else STEPS
    with tempfile.TemporaryDirectory(prefix="trainmaster-bench-") as place:
        needed, free = DISK_SHARE * gb * _GB, shutil.disk_usage(place).free
        if free < needed:
            raise UnavailableError(f"needs {needed / _GB:.0f} GB of disk and {free / _GB:.0f} are free; pass a --gb")
        folder = Path(place) / "large"
        rows = make_rows(folder, int(gb * _GB))
        source = sum(each.stat().st_size for each in (folder / SOURCE).iterdir())
        one = {name: _arm("ours", folder, most, steps) for name in ("build", "again")}
        whole = _arm("pandas", folder, most)
        shutil.rmtree(folder)
        folder = Path(place) / "smaller"
        make_rows(folder, int(peer_gb * _GB))
        one |= {"small-build": _arm("ours", folder, most, 2), "theirs-build": _arm("theirs-build", folder, most)}
        rounds = read_in_turns(folder, most, repeats)
        shutil.rmtree(folder / CACHE)
        shutil.rmtree(folder / THEIRS, ignore_errors=True)
        free_pandas = _arm("pandas", folder, WITHOUT_LIMIT)
    one |= {"whole": whole, "free-pandas": free_pandas}
    return result(one, rounds, Sizes(gb, peer_gb, rows, source / _GB, most, steps))


def read_in_turns(folder: Path, most: int, repeats: int) -> dict[str, list[Ended]]:
    """Let each reader make batches, under the limit, and the peer's also without it; one that is late only once."""
    rounds: dict[str, list[Ended]] = {"ours-batches": [], "theirs-batches": [], "theirs-free": []}
    for turn in range(repeats):
        for name in list(rounds) if turn % 2 == 0 else list(rounds)[::-1]:
            if not any(each.is_late for each in rounds[name]):
                arm, limit = ("theirs-batches", WITHOUT_LIMIT) if name == "theirs-free" else (name, most)
                rounds[name].append(_arm(arm, folder, limit, patience=PATIENCE))
    return rounds


class Sizes:
    """What was measured: sizes in GB of decoded rows, rows, GB of the source's files, bytes of memory, steps."""

    def __init__(self, gb: float, peer_gb: float, rows: int, source: float, most: int, steps: int) -> None:
        self.gb, self.peer_gb, self.rows, self.source, self.most, self.steps = gb, peer_gb, rows, source, most, steps


def _arm(arm: str, folder: Path, most: int, steps: int = 0, patience: float = float("inf")) -> Ended:
    """Run an arm with no page of its files in memory."""
    forget(folder)
    log = Path(os.environ.get("TRAINMASTER_BENCH_LOG", folder.parent / "log"))
    command = [sys.executable, "-m", "tests.bench.larger_arms", arm, str(folder), str(steps)]
    ended = run_limited(command, environment(), most, log, patience)
    print(f"larger, {arm}, {folder.name}: {ended}", file=sys.stderr, flush=True)
    if ended.code and not ended.was_killed:
        print(log.read_text()[-2000:], file=sys.stderr, flush=True)
    return ended


def result(one: dict[str, Ended], rounds: dict[str, list[Ended]], sizes: Sizes) -> Result:
    """Figures from what ran."""
    build, again = one["build"], one["again"]
    limit = sizes.most / _MIB
    peak = max(build.peak, again.peak)
    is_complete = build.code == again.code == 0
    rates = {name: [each.out.get("rate", 0.0) for each in found] for name, found in rounds.items()}
    compared = "theirs-batches" if all(rates["theirs-batches"]) else "theirs-free"
    faster = ratio(rates["ours-batches"], rates[compared]) if all(rates[compared]) else None
    ratios = {compared: str(faster) if faster else ""}
    by = f"{build.by}: {FILES}" if build.by == "a cgroup" else f"{build.by} of the process and its children"
    rows = [
        [f"Trainmaster, {sizes.gb:g} GB, no cache yet", *_trained(build, again, sizes)],
        [f"Trainmaster, {sizes.gb:g} GB, from its cache", *_trained(again, None, sizes)],
    ]
    readers = [
        [f"Trainmaster's cache, {sizes.peer_gb:g} GB", "", *_read(one["small-build"], rounds["ours-batches"], "")],
        [
            f"HF datasets' memory map, {sizes.peer_gb:g} GB",
            ratios.get("theirs-batches", ""), *_read(one["theirs-build"], rounds["theirs-batches"], "build"),
        ],
        [
            f"HF datasets' memory map, {sizes.peer_gb:g} GB, no limit",
            ratios.get("theirs-free", ""), *_read(one["theirs-build"], rounds["theirs-free"], "build"),
        ],
    ]  # fmt: skip
    whole = [
        [
            f"pandas, {sizes.peer_gb:g} GB, no limit",
            _ended(one["free-pandas"]),
            f"{one['free-pandas'].peak / _MIB:.0f}",
        ],
        [f"pandas, {sizes.gb:g} GB, the limit", _ended(one["whole"]), f"{one['whole'].peak / _MIB:.0f}"],
    ]
    tables = [
        Table(
            [
                "training",
                "ended",
                "s to the first step",
                "a cache saves: s",
                "MB/s",
                "rows/s",
                "accuracy",
                "peak, MiB",
            ],
            rows,
            f"{sizes.gb:g} GB of rows in {limit:.0f} MiB",
        ),
        Table(["shuffled batches", "Trainmaster / it", "s to build", "rows/s", "peak, MiB"], readers),
        Table(["all at once", "ended", "peak, MiB"], whole),
    ]
    verdict = str(faster) if faster else f"{_ended(rounds['theirs-batches'][0])} without a figure"
    if faster and compared == "theirs-free":
        verdict += f", which has no limit; under it: {_ended(rounds['theirs-batches'][0])}"
    is_fast = all(rates["ours-batches"]) and (faster is None or faster.median >= 1.0)
    bars = [
        Bar(
            f"{sizes.gb:g} GB of rows are trained on", f"anonymous memory <= {limit:.0f} MiB",
            f"{peak / _MIB:.0f} MiB, {_ended(build)}", is_complete and peak <= sizes.most,
        ),
        Bar("shuffled rows per second, beside HF datasets' memory map", "ratio >= 1.0", verdict, is_fast),
    ]  # fmt: skip
    samples: dict[str, object] = {name: vars(each) for name, each in one.items()}
    samples |= {name: [vars(each) for each in found] for name, found in rounds.items()}
    about = f"""
{sizes.rows:,} rows of {DOUBLES} float64 and {FLOATS} float32 numbers, a category of {KINDS} and a class:
{sizes.gb:g} GB when decoded, {sizes.source:.1f} GB of Parquet files, because each column has few distinct numbers. A
process has {limit:.0f} MiB of memory, kept by {by}. Peak is its anonymous memory, which the kernel can't take back.
Trainmaster's trains `mlp` with `fit`, as a rank of a job does (Ray's own processes aren't in it): {sizes.steps:,} steps
of {BATCH} rows drawn from the whole table, then the validation and the test split. The time to the first step has
roles, checks, split and statistics in it; what a cache saves of it is the time to build it and to find what is stored
beside it, by which the MB/s are of decoded rows. Readers of shuffled batches make float32 tensors, and nothing is
trained, {SECONDS:g} s each, in turns, under the same limit, and the peer also without one; no page of their files is in
memory when they start, and one that isn't done after {PATIENCE:g} s is ended.
"""
    return Result("larger", "Rows larger than memory", about.strip(), tables, bars, samples)


def _trained(ended: Ended, again: Ended | None, sizes: Sizes) -> list[str]:
    if ended.code:
        return [_ended(ended), "", "", "", "", "", f"{ended.peak / _MIB:.0f}"]
    out, seconds = ended.out, 0.0
    if again is not None and not again.code:
        seconds = max(1e-9, out["first"] - again.out["first"])
    return [
        _ended(ended),
        f"{out['first']:.1f}",
        f"{seconds:.1f}" if seconds else "",
        f"{sizes.gb * 1000 / seconds:.0f}" if seconds else "",
        f"{out['rate']:.0f}",
        f"{out['accuracy']:.3f}",
        f"{ended.peak / _MIB:.0f}",
    ]


def _read(build: Ended, found: list[Ended], key: str) -> list[str]:
    rates = [each.out["rate"] for each in found if not each.code]
    return [
        f"{build.out.get(key or 'first', 0):.1f}" if not build.code else _ended(build),
        spread(rates, 0) if rates else _ended(found[0]),
        spread([each.peak / _MIB for each in found], 0),
    ]


def _ended(ended: Ended) -> str:
    if ended.is_late:
        return f"ended after {PATIENCE:g} s without a figure"
    if ended.was_killed:
        return "killed: out of memory"
    return "complete" if not ended.code else f"failed with code {ended.code}"
