"""events.jsonl and the driver's log in the run's storage."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from trainmaster_trainer.errors import StorageUnavailable
from trainmaster_trainer.reporting import events
from trainmaster_trainer.reporting.events import EventLog
from trainmaster_trainer.storage.store import Store

from .test_console import report


def test_keeper_events_of_earlier_attempts_stay(tmp_path: Path) -> None:
    store, log = Store(str(tmp_path / "run")), tmp_path / "log"
    log.write_text("printed\n")
    for attempt in (1, 2):
        event_log = EventLog(store, attempt, "pod-x", str(log))
        event_log.show({"event": "state", "state": "Training"})
        event_log.show(report("Step"))
        event_log.show({"event": "result", "outcome": "Complete", "checkpoint": None})
        event_log.close()
    lines = [json.loads(line) for line in (store.get("events.jsonl") or b"").splitlines()]
    found = [(line["attempt"], line["event"]) for line in lines]
    assert found == [(1, "state"), (1, "result"), (2, "state"), (2, "result")], "steps are not kept"
    assert store.get("logs/a2/pod-x.log") == b"printed\n"


def test_keeper_milestones_are_kept(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run"))
    event_log = EventLog(store, 1, "", "")
    for kind in ("Resumed", "Loaded", "FirstStep", "Step", "Validation", "Checkpoint", "Warning", "Done"):
        event_log.show(report(kind))
    event_log.close()
    kinds = [json.loads(line)["kind"] for line in (store.get("events.jsonl") or b"").splitlines()]
    assert kinds == ["Resumed", "Loaded", "FirstStep", "Checkpoint", "Warning", "Done"]


def test_keeper_validations_of_trials_are_in_the_journal_only(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run"))
    event_log = EventLog(store, 1, "", "")
    running = [{"number": 0, "time": 1, "value": 0.5, "values": {}}]
    for message in ("trial 0 begins", "", "trial 0 is complete"):
        event_log.show({"event": "trials", "message": message, "total": 4, "running": running, "best_values": {"a": 1}})
    event_log.close()
    lines = [json.loads(line) for line in (store.get("events.jsonl") or b"").splitlines()]
    assert lines == [
        {"attempt": 1, "event": "trials", "message": message, "total": 4}
        for message in ("trial 0 begins", "trial 0 is complete")
    ]


class Away(Store):
    """Storage that takes nothing until it is back."""

    is_back = False

    def put(self, path: str, data: bytes) -> None:
        if not self.is_back:
            raise StorageUnavailable("no route to host")
        super().put(path, data)


def test_keeper_storage_that_is_away_loses_no_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Away(str(tmp_path / "run"))
    event_log = EventLog(store, 1, "", "")
    event_log.show({"event": "state", "state": "Training"})
    deadline = time.monotonic() + 10
    while "events.jsonl can't be written: no route to host" not in (out := capsys.readouterr().out):
        assert time.monotonic() < deadline, out
        time.sleep(0.01)
    store.is_back = True
    event_log.close()
    assert json.loads(store.get("events.jsonl") or b"")["state"] == "Training"


def test_keeper_log_is_cut_at_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_LOG_LIMIT", 4)
    (tmp_path / "log").write_text("first last")
    store = Store(str(tmp_path / "run"))
    EventLog(store, 2, "", str(tmp_path / "log")).close()
    assert store.get("logs/a2/driver.log") == b"last"


def test_keeper_log_that_was_never_written(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run"))
    EventLog(store, 2, "", str(tmp_path / "none")).close()
    assert [path for path, _ in store.list()] == ["events.jsonl"]


def test_keeper_leaves_out_empty_fields(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run"))
    event_log = EventLog(store, 1, "", "")
    event_log.show({"event": "result", "message": "", "metrics": {}, "lines": [], "step": 0, "checkpoint": None})
    event_log.close()
    assert json.loads(store.get("events.jsonl") or b"") == {"attempt": 1, "event": "result", "step": 0}
