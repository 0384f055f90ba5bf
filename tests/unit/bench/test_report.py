"""The page of results, and the store."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import report
from tests.bench.result import Bar, Result, Stamp, Table, stamp, store

STAMP = Stamp("abc1234567", "2026-11-21", "2 cores", 3, quick=False)
QUICK = replace(STAMP, quick=True)


def result(name: str = "operator", cell: str = "12.3") -> Result:
    table = Table(["", "wall s"], [["ours", cell]], "1,000 jobs")
    return Result(name, f"Title of {name}", "How.", [table], [Bar("wall", "0.7x", "0.66x", True)], {"wall": [12.3]})


def test_section_of_a_report() -> None:
    text = report.section(result(), STAMP)
    assert "Commit abc1234567; 2026-11-21; 2 cores; repeats: 3." in text
    assert "| wall | 0.7x | 0.66x | PASS |" in text
    assert "### 1,000 jobs\n\n|  | wall s |\n| --- | ---: |\n| ours | 12.3 |" in text


def test_a_pipe_in_a_cell_does_not_break_the_table() -> None:
    assert "| a\\|b |" in report.section(result(cell="a|b"), STAMP)


def test_a_run_rewrites_its_own_section_only(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    report.write([(result("step"), STAMP), (result("operator", "1.0"), STAMP)], page)
    before = report.read(page.read_text())["step"]
    report.write([(result("operator", "2.0"), STAMP)], page)
    sections = report.read(page.read_text())
    assert sections["step"] == before
    assert "| ours | 2.0 |" in sections["operator"]
    assert list(sections) == ["operator", "step"]
    assert page.read_text().startswith("# Benchmarks\n")


@pytest.mark.parametrize(("second", "kept"), [(QUICK, "1.0"), (STAMP, "2.0")], ids=["quick", "thorough"])
def test_a_quick_run_never_replaces_a_thorough_one(tmp_path: Path, second: Stamp, kept: str) -> None:
    page = tmp_path / "benchmarks.md"
    report.write([(result(cell="1.0"), STAMP)], page)
    report.write([(result(cell="2.0"), second)], page)
    assert f"| ours | {kept} |" in page.read_text()


def test_a_quick_section_says_so_and_gives_way(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    report.write([(result(cell="1.0"), QUICK)], page)
    assert "quick run" in page.read_text()
    report.write([(result(cell="2.0"), QUICK)], page)
    assert "| ours | 2.0 |" in page.read_text()
    report.write([(result(cell="3.0"), STAMP)], page)
    assert "quick run" not in page.read_text()


def test_writing_twice_changes_nothing(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    report.write([(result(), STAMP)], page)
    first = page.read_text()
    report.write([(result(), STAMP)], page)
    assert page.read_text() == first


def test_the_store_keeps_quick_and_thorough_apart(tmp_path: Path) -> None:
    store(result(cell="1.0"), STAMP, tmp_path)
    store(result(cell="2.0"), QUICK, tmp_path)
    kept = json.loads((tmp_path / "operator.json").read_text())
    assert kept["result"]["samples"] == {"wall": [12.3]}
    assert kept["stamp"]["commit"] == STAMP.commit
    assert (tmp_path / "operator.quick.json").exists()


def test_the_terminal_shows_every_bar() -> None:
    missed = replace(result(), bars=[Bar("wall", "0.7x", "0.9x", False)])
    assert "MISS  wall: 0.9x (limit 0.7x)" in report.terminal(missed)


def test_the_stamp_names_the_commit() -> None:
    assert len(stamp(1, quick=False).commit.split(",")[0]) >= 7
