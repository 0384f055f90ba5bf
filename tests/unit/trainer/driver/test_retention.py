"""The checkpoints of trials: gone when they are no longer needed, and never before that is known for good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trainmaster_trainer.checkpoint.protocol import claim
from trainmaster_trainer.driver.retention import Retention
from trainmaster_trainer.errors import StorageUnavailable
from trainmaster_trainer.storage.store import Store
from trainmaster_trainer.tuning.trials import TrialEnd, TrialRecord


@pytest.fixture
def run(tmp_path: Path) -> Store:
    """Return the store of a run with five trials that have checkpoints."""
    store = Store(str(tmp_path))
    claim(store, 1)
    for number in range(5):
        for name in ("checkpoints/a1-step-0000001/data", "checkpoints/a1-step-0000001/manifest.json", "objects/0f",
                     "LATEST", "BEST", "metrics.jsonl"):  # fmt: skip
            store.put(f"trials/{number:04d}/{name}", b"x")
    return store


def trials(*values: float | None) -> list[TrialRecord]:
    """Return records of trials; None: it hasn't ended."""
    return [
        TrialRecord(number, {}, TrialEnd.COMPLETE if value is not None else None, (value or 0.0,), 1)
        for number, value in enumerate(values)
    ]


def left(run: Store) -> dict[int, list[str]]:
    """Return what each trial still has, but for what each one keeps."""
    found: dict[int, list[str]] = {}
    for path, _ in run.list("trials"):
        _, number, name, *_ = path.split("/")
        if name == "metrics.jsonl":
            found.setdefault(int(number), [])
        elif name not in found.setdefault(int(number), []):
            found[int(number)].append(name)
    return found


WHOLE = ["BEST", "LATEST", "checkpoints", "objects"]


def test_best_and_unfinished_trials_keep_their_checkpoints(run: Store) -> None:
    retention = Retention(run, 1, 2, [False])
    retention.begin([])
    now = trials(4.0, 1.0, None, 3.0, 2.0)
    for number in (0, 1, 3, 4):
        retention.ended(number, now, has_returned=True)
    retention.finish()
    assert left(run) == {0: [], 1: WHOLE, 2: WHOLE, 3: [], 4: WHOLE}
    assert not (Path(run.uri) / "trials/0000/checkpoints").exists()


def test_what_a_killed_attempt_has_left_is_removed_by_the_next(run: Store) -> None:
    run.delete("trials/0000/LATEST", "trials/0000/checkpoints/a1-step-0000001/manifest.json")  # it was in the middle
    retention = Retention(run, 1, 1, [True])
    retention.begin(trials(1.0, 2.0, 3.0, None))
    retention.finish()
    assert left(run) == {0: [], 1: [], 2: WHOLE, 3: WHOLE, 4: WHOLE}  # of 4 the journal knows nothing


def test_fenced_attempt_removes_nothing(run: Store) -> None:
    retention = Retention(run, 1, 0, [True])
    claim(run, 2)
    retention.begin(trials(1.0, 2.0, 3.0, 4.0, 5.0))
    retention.finish()
    assert left(run) == dict.fromkeys(range(5), WHOLE)


def test_trial_whose_ranks_may_still_save_is_left_alone_until_they_have_returned(run: Store) -> None:
    retention = Retention(run, 1, 0, [True])
    retention.begin(trials(None))
    retention.ended(0, trials(1.0), has_returned=False)
    retention.ended(1, trials(1.0, 1.0), has_returned=True)
    wait(retention)
    assert left(run)[0] == WHOLE
    assert left(run)[1] == []
    retention.returned(0)
    wait(retention)
    assert left(run)[0] == []


def test_storage_that_is_away_is_tried_again(run: Store, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def fail(*given: Any) -> None:
        raise StorageUnavailable("no answer")

    retention = Retention(run, 1, 0, [True])
    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete_directory", fail)
        retention.begin(trials(1.0))
        wait(retention)
    assert "can't be removed: no answer" in capsys.readouterr().out
    retention.ended(1, trials(1.0, 2.0), has_returned=True)
    retention.finish()
    assert (left(run)[0], left(run)[1]) == ([], [])


def wait(retention: Retention) -> None:
    """Wait until everything that was told has been done."""
    retention._thread.submit(lambda: None).result()
