"""A search on a terminal: one table that is updated in place; elsewhere a line for each event."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from trainmaster_trainer.reporting.console import PlainDisplay, RichDisplay
from trainmaster_trainer.reporting.event import RunEvent
from trainmaster_trainer.reporting.search_table import SearchTable


def event(message: str = "", *running: tuple[int, int, float | None], **more: Any) -> dict[str, Any]:
    """An event with running trials: number, validations, newest value."""
    rows = [
        {"number": number, "time": time, "value": value, "values": {"lr": 0.1 * (number + 1), "kind": f"k{number}"}}
        for number, time, value in running
    ]
    return {"event": "trials", "message": message, "seconds": 1.0, "total": 8, "metric": "val/loss", "longest": 4,
            "running": rows, **more}  # fmt: skip


BEGUN = event("trial 0 begins: lr 0.1", (0, 0, None))
MOVED = event("", (0, 2, 0.75))
SECOND = event("trial 1 begins: lr 0.2", (0, 2, 0.75), (1, 0, None))
ENDED = event("trial 0 is complete", (1, 1, 0.5), ended=1, complete=1, best=0.7, best_trial=0)
FAILED = event("trial 1 failed: ValueError: x", ended=2, complete=1, failed=1, best=0.7, best_trial=0)
OVER = event(
    "the search is over: all 8 trials have been run", ended=8, complete=8, best=0.7, best_trial=0, is_over=True
)


def drawn(table: SearchTable) -> list[list[str]]:
    found = table.draw()
    if found is None:
        return []
    stream = io.StringIO()
    Console(file=stream, width=100).print(found)
    return [line.split() for line in stream.getvalue().splitlines() if line.strip() and "─" not in line]


def test_the_table_is_what_runs_and_the_best() -> None:
    table, lines = SearchTable(), []
    assert drawn(table) == []
    for each in (BEGUN, MOVED, SECOND):
        lines.append(table.take(RunEvent.read(each)))
    assert drawn(table) == [
        ["trial", "validation", "val/loss", "lr", "kind"],
        ["0", "2/4", "0.7500", "0.1", "k0"],
        ["1", "0/4", "-", "0.2", "k1"],
    ]
    assert table.counters == "0/8 trials"
    lines.append(table.take(RunEvent.read(ENDED)))
    assert drawn(table)[1:] == [
        ["1", "1/4", "0.5000", "0.2", "k1"],
        ["best:", "0", "2/4", "0.7000", "0.1", "k0"],
    ]
    assert table.counters == "1/8 trials: 1 complete"
    assert lines == ["", "", "", ""], "the table says it"


def test_what_the_table_does_not_show_is_a_line() -> None:
    table = SearchTable()
    for each in (BEGUN, SECOND, ENDED):
        table.take(RunEvent.read(each))
    assert table.take(RunEvent.read(FAILED)) == "trial 1 failed: ValueError: x"
    lost = event("trial 2 lost its processes", ended=2, failed=1)
    assert table.take(RunEvent.read(lost)) == "trial 2 lost its processes"
    assert table.take(RunEvent.read(OVER)) == OVER["message"]
    assert drawn(table) == []


def test_many_trials_and_parameters_stay_a_screen() -> None:
    table = SearchTable()
    found = event("x", *((number, 1, 0.5) for number in range(100)))
    for each in found["running"]:
        each["values"] = {f"p{index}": 1 for index in range(64)}
    table.take(RunEvent.read(found))
    rows = drawn(table)
    assert len(rows) == 1 + 12 + 1
    assert rows[-1] == ["and", "88", "more"]
    assert rows[0][-1] == "p5"


def test_a_best_of_an_attempt_before_has_its_parameters() -> None:
    table = SearchTable()
    table.take(RunEvent.read(event("x", (5, 1, 0.5), best=0.2, best_trial=3, best_values={"lr": 0.7})))
    table.take(RunEvent.read(event("", (5, 2, 0.4), best=0.2, best_trial=3)))
    assert drawn(table)[-1] == ["best:", "3", "-", "0.2000", "0.7", "-"]


def test_a_terminal_has_the_table_and_a_log_has_lines() -> None:
    screen, log = io.StringIO(), io.StringIO()
    rich = RichDisplay("val/loss", Console(file=screen, force_terminal=True, width=100))
    plain = PlainDisplay("val/loss", log)
    for each in (BEGUN, MOVED, SECOND, ENDED, FAILED):
        rich.show(each)
        plain.show(each)
    rich._progress.refresh()
    rich.close()
    assert "2/8 trials: 1 complete, 1 failed" in screen.getvalue()
    assert "trial 1 failed: ValueError: x" in screen.getvalue()
    assert "trial 0 begins" not in screen.getvalue()
    assert "best: 0" in screen.getvalue()
    assert [line.split("  ")[-1] for line in log.getvalue().splitlines()] == [
        each["message"] for each in (BEGUN, SECOND, ENDED, FAILED)
    ]
