"""What the benchmark of rows larger than memory makes of its arms, of which some are killed."""

from __future__ import annotations

from dataclasses import replace

from tests.bench.bench_larger import Sizes, result
from tests.bench.limit import Ended
from tests.bench.result import Result

SIZES = Sizes(20.0, 4.0, 19_531_250, 3.2, 2 << 30, 2000)


def ended(code: int = 0, mib: int = 900, **out: float) -> Ended:
    return Ended(code, mib << 20, 1.0, {} if code else out, "a cgroup")


def made(mib: int = 900, ours: float = 300.0, theirs: int = 0, *, is_late: bool = False) -> Result:
    one = {
        "build": ended(mib=mib, first=500.0, rate=1e4, accuracy=0.9),
        "again": ended(mib=400, first=100.0, rate=2e4, accuracy=0.9),
        "whole": ended(-9),
        "free-pandas": ended(mib=5000, build=3.0),
        "small-build": ended(first=60.0),
        "theirs-build": ended(build=30.0),
    }
    rounds = {
        "ours-batches": [ended(rate=ours)],
        "theirs-batches": [replace(ended(theirs, rate=100.0), is_late=is_late)],
        "theirs-free": [ended(rate=200.0)],
    }
    return result(one, rounds, SIZES)


def test_figures() -> None:
    found = made()
    assert [bar.verdict for bar in found.bars] == ["PASS", "PASS"]
    assert found.bars[1].measured == "3.00x (one pair)"
    assert found.tables[0].rows[0][1:5] == ["complete", "500.0", "400.0", "50"]  # 20,000 MB in 400 s
    assert found.tables[2].rows[1][1] == "killed: out of memory"


def test_more_memory_and_slower_are_missed() -> None:
    assert [bar.verdict for bar in made(mib=2100, ours=90.0).bars] == ["MISS", "MISS"]


def test_a_peer_that_is_killed_has_no_figure() -> None:
    found = made(theirs=-9)
    assert found.bars[1].measured == "1.50x (one pair), which has no limit; under it: killed: out of memory"
    assert [row[1] for row in found.tables[1].rows] == ["", "", "1.50x (one pair)"]


def test_a_peer_that_is_late_has_no_figure() -> None:
    found = made(theirs=-9, is_late=True)
    assert found.tables[1].rows[1][3] == "ended after 300 s without a figure"
    assert "killed" not in found.bars[1].measured
