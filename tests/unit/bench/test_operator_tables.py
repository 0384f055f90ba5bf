"""Bars and tables of the operator benchmark."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.bench.operator_tables import FLOOR, OURS, TUNED, Run, Runs, bars, result

GOOD = Run(
    1000, wall=60, p50=20, p99=50, bed_cpu=120, cpu=15, peak=80 * 2**20, writes={"create pods": 4000, "create x": 4000}
)
PEER = Run(1000, wall=100, p50=40, p99=95, bed_cpu=200, cpu=23, peak=280 * 2**20, writes={"create pods": 4000})
BARE = Run(1000, wall=33, p50=15, p99=30, bed_cpu=60)


def runs(ours: Run) -> Runs:
    return {FLOOR: [BARE], TUNED: [PEER], OURS: [ours]}


def test_all_bars_hold() -> None:
    assert [bar.verdict for bar in bars(runs(GOOD), 1000)] == ["PASS"] * 6


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({"wall": 71.0}, "time until all are ready"),
        ({"cpu": 23.0}, "operator CPU"),
        ({"peak": 280 * 2**20}, "operator peak memory"),
        ({"writes": {"create pods": 9001}}, "writes per job"),
        ({"bed_cpu": 150.0}, "CPU of the whole bed"),
        ({"idle": {"patch trainingjobs/status": 1}}, "writes for converged jobs"),
    ],
    ids=["wall", "cpu", "memory", "writes", "bed", "idle"],
)
def test_each_bar_can_be_missed(change: dict[str, object], missed: str) -> None:
    found = [bar.what for bar in bars(runs(replace(GOOD, **change)), 1000) if not bar.passed]  # type: ignore[arg-type]
    assert len(found) == 1
    assert found[0].startswith(missed)


def test_tables_show_each_arm_and_each_kind_of_write() -> None:
    tables = result({1000: runs(GOOD)}, nodes=50, idle=30, samples={}).tables
    figures, writes = tables
    assert [row[0] for row in figures.rows] == [FLOOR, TUNED, OURS]
    assert all(len(row) == len(figures.columns) for row in figures.rows)
    assert ["create pods", "4.00", "4.00"] in writes.rows
    assert ["create x", "0.00", "4.00"] in writes.rows
