"""What the console shows while a run is in progress."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from trainmaster_trainer.reporting.console import PlainDisplay, RichDisplay, metrics_text
from trainmaster_trainer.reporting.event import EventKind


def report(kind: str, step: int = 5, **more: Any) -> dict[str, Any]:
    base = {"event": "report", "seconds": 3.0, "kind": kind, "step": step, "total_steps": 10, "epoch": 1}
    return {**base, "eta_seconds": 7.0, "metrics": {"val/loss": 0.5}, "message": "", **more}


EVENTS = [
    {"event": "ray_ready", "seconds": 1.0},
    {"event": "trials", "message": "trial 3 lost its processes", "total": 8, "seconds": 5.0},
    report("Resumed"),
    {"event": "state", "state": "Training", "seconds": 2.0, "message": ""},
    report("Validation"),
    report("Checkpoint"),
    report("Warning", message="checkpoint a1-step-5 is torn [/x]"),
    report("FromTheFuture", message="storage http://s3 has not responded for 7 s"),
    {"event": "state", "state": "Recovering", "seconds": 4.0, "message": "the process of rank 1 is gone"},
    {"event": "warning", "message": "MLflow is away", "seconds": 5.0},
    {"event": "tracker", "name": "mlflow", "run_id": "r1", "url": "http://m/r1", "seconds": 5.0},
    {"event": "leaving", "pod": "w-1", "seconds": 5.0},
    {"event": "from-the-future", "seconds": 5.0, "what": "ever"},
    {"event": "result", "outcome": "Complete", "seconds": 6.0, "checkpoint": {"step": 5}},
]
SHOWN = [
    "resumed from step 5",
    "is torn [/x]",
    "storage http://s3 has not responded for 7 s",
    "rank 1 is gone",
    "MLflow is away",
    "mlflow: run r1 at http://m/r1",
    "w-1 is being terminated: saving a checkpoint first",
    "trial 3 lost its processes",
]


def test_every_kind_of_event_is_among_the_examples() -> None:
    assert {event["event"] for event in EVENTS} - {"from-the-future"} == set(EventKind) - {EventKind.OTHER}


def test_metrics_text_leaves_out_missing_ones() -> None:
    assert metrics_text({"val/loss": 0.12345}, ["train/loss", "val/loss"]) == "val/loss 0.1235"


def test_plain_display_lines() -> None:
    stream = io.StringIO()
    display = PlainDisplay("val/loss", stream)
    for event in EVENTS:
        display.show(event)
    for words in [*SHOWN, "step 5/10  epoch 1  val/loss 0.5000  ETA 7s"]:
        assert words in stream.getvalue()


def test_rich_display_lines() -> None:
    stream = io.StringIO()
    display = RichDisplay("val/loss", Console(file=stream, force_terminal=True, width=100))
    for event in EVENTS:
        display.show(event)
    display._progress.refresh()
    display.close()
    for words in [*SHOWN, "5/10"]:
        assert words in stream.getvalue()
