"""events.jsonl and the driver's log in the run's storage."""

from __future__ import annotations

import json
from pathlib import Path

from trainmaster_trainer.reporting.events import Keeper
from trainmaster_trainer.storage.store import Store

from .test_console import report


def test_events_of_earlier_attempts_stay(tmp_path: Path) -> None:
    store, log = Store(str(tmp_path / "run")), tmp_path / "log"
    log.write_text("printed\n")
    for attempt in (1, 2):
        keeper = Keeper(store, attempt, "pod-x", str(log))
        keeper.show({"event": "state", "state": "Training"})
        keeper.show(report("Step"))
        keeper.show({"event": "result", "outcome": "Complete", "checkpoint": None})
        keeper.close()
    lines = [json.loads(line) for line in (store.get("events.jsonl") or b"").splitlines()]
    found = [(line["attempt"], line["event"]) for line in lines]
    assert found == [(1, "state"), (1, "result"), (2, "state"), (2, "result")], "steps are not kept"
    assert store.get("logs/a2/pod-x.log") == b"printed\n"


def test_milestones_are_kept(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run"))
    keeper = Keeper(store, 1, "", "")
    for kind in ("Resumed", "Loaded", "FirstStep", "Step", "Validation", "Checkpoint", "Warning", "Done"):
        keeper.show(report(kind))
    keeper.close()
    kinds = [json.loads(line)["kind"] for line in (store.get("events.jsonl") or b"").splitlines()]
    assert kinds == ["Resumed", "Loaded", "FirstStep", "Checkpoint", "Warning", "Done"]
