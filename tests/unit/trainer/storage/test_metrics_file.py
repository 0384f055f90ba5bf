"""metrics.jsonl over attempts: what an attempt takes over, and what it writes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.layout import METRICS
from trainmaster_trainer.storage.metrics_file import MetricsLog
from trainmaster_trainer.storage.store import Store


class Counting(Store):
    """Counts its writes."""

    writes = 0

    def put(self, path: str, data: bytes) -> None:
        self.writes += 1
        super().put(path, data)


@pytest.fixture
def store(tmp_path: Path) -> Counting:
    return Counting(str(tmp_path / "run"))


def lines(store: Store) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store.get(METRICS) or b"").splitlines()]


def test_metrics_log_writes_only_what_is_new(store: Counting) -> None:
    log = MetricsLog(store)
    log.flush()
    assert store.writes == 0
    log.add(1, 0, {"train/loss": 0.5})
    log.add(2, 0, {"train/loss": 0.25})
    log.flush()
    log.flush()
    assert store.writes == 1
    assert lines(store) == [{"step": 1, "epoch": 0, "train/loss": 0.5}, {"step": 2, "epoch": 0, "train/loss": 0.25}]


class FailsOnce(Store):
    """Fails its first write."""

    failures = 1

    def put(self, path: str, data: bytes) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("no space left on device")
        super().put(path, data)


def test_metrics_log_flush_repeats_a_failed_write(tmp_path: Path) -> None:
    store = FailsOnce(str(tmp_path / "run"))
    log = MetricsLog(store)
    log.add(1, 0, {"train/loss": 0.5})
    with pytest.raises(OSError, match="no space left"):
        log.flush()
    assert lines(store) == []
    log.flush()
    assert lines(store) == [{"step": 1, "epoch": 0, "train/loss": 0.5}]


def test_metrics_log_a_number_that_is_not_finite_is_null(store: Counting) -> None:
    log = MetricsLog(store)
    log.add(1, 0, {"a": math.nan, "b": math.inf, "c": 1.0})
    log.flush()
    assert lines(store) == [{"step": 1, "epoch": 0, "a": None, "b": None, "c": 1.0}]


def test_metrics_log_resume_drops_later_steps_and_the_test(store: Counting) -> None:
    first = MetricsLog(store)
    for step in (1, 2, 3):
        first.add(step, 0, {"train/loss": step / 8, "val/loss": 0.5 if step == 1 else math.nan})
    first.add(2, 0, {"test/loss": 0.9})
    first.flush()
    second = MetricsLog(store)
    assert second.resume(2) == {"train/loss": 0.25, "val/loss": 0.5}, "the newest number of each, up to there"
    second.add(3, 0, {"train/loss": 7.0})
    second.flush()
    assert [(line["step"], line["train/loss"]) for line in lines(store)] == [(1, 0.125), (2, 0.25), (3, 7.0)]


def test_metrics_log_resume_passes_over_torn_lines(store: Counting) -> None:
    store.put(METRICS, b'{"step": 1, "epoch": 0, "a": 1}\n{"epoch": 0}\n[]\n{"step": 2, "epo')
    log = MetricsLog(store)
    assert log.resume(9) == {"a": 1.0}
    log.add(2, 0, {"a": 2.0})
    log.flush()
    assert [line["step"] for line in lines(store)] == [1, 2]
