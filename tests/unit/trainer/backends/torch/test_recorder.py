"""When the recorder wants a checkpoint, which one is the best, and what it reports."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trainmaster_api.layout import FENCE, METRICS
from trainmaster_trainer.backends.torch import recorder as module
from trainmaster_trainer.backends.torch.builder import build
from trainmaster_trainer.backends.torch.recorder import Recorder
from trainmaster_trainer.checkpoint.interval import AUTO_LEAST, AUTO_MOST
from trainmaster_trainer.checkpoint.manager import CheckpointManager, Slow
from trainmaster_trainer.context import ReportKind

from tests.unit.trainer.harness import Recording, make_context, small_job

STEPS = 22  # per epoch: 1797 rows of digits, 80 % of them to train on, 64 in a step


class Bench:
    """A recorder, its clock, and its reports."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, rank: int = 0, **checkpoint: Any) -> None:
        self.now, self.slow, self.is_idle = 1000.0, None, True
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(CheckpointManager, "is_idle", property(lambda manager: self.is_idle))
        monkeypatch.setattr(CheckpointManager, "slow", property(lambda manager: self.slow))
        job = small_job({f"spec.checkpoint.{key}": value for key, value in checkpoint.items()})
        self.recording = Recording()
        self.setup = build(make_context(job, root, rank=rank, recording=self.recording))
        self.recorder = Recorder(self.setup)

    def due_after(self, *seconds: float) -> list[bool]:
        found = []
        for each in seconds:
            self.now = 1000.0 + each
            found.append(self.recorder.wants_save())
        return found

    def steps_due(self) -> list[int]:
        found = []
        for step in range(1, self.setup.total_steps + 1):
            self.setup.step = step
            found += [step] if self.recorder.save_due() else []
        return found

    def reported(self) -> list[tuple[ReportKind, str]]:
        return [(report.kind, report.message) for report in self.recording.reports]


@pytest.mark.parametrize(("save_seconds", "interval"), [(0.0, 5), (0.03, 5), (2.0, 200), (60.0, 900)])
def test_auto_saves_cost_one_percent_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_seconds: float, interval: float
) -> None:
    assert (AUTO_LEAST, AUTO_MOST) == (5, 900)
    bench = Bench(tmp_path, monkeypatch, every="auto")
    bench.recorder.manager.last_save_seconds = save_seconds
    assert bench.due_after(interval - 0.1, interval) == [False, True]
    assert bench.steps_due() == [4 * STEPS], "auto counts no steps"


def test_interval_in_minutes_is_one_of_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch, every="10m")
    assert bench.due_after(599, 600) == [False, True]
    assert bench.steps_due() == [4 * STEPS]


def test_no_save_by_the_clock_while_one_is_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch, every="10m")
    bench.is_idle = False
    assert bench.due_after(6000) == [False]


@pytest.mark.parametrize(
    ("every", "steps"),
    [("30step", [30, 60, 88]), ("2ep", [44, 88]), ("44step", [44, 88]), ("1000step", [88])],
)
def test_interval_in_steps_and_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: str, steps: list[int]
) -> None:
    bench = Bench(tmp_path, monkeypatch, every=every)
    assert bench.steps_due() == steps
    assert bench.due_after(1e6) == [False], "steps are not counted by the clock"


def test_save_is_due_when_the_run_stops_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch, every="1000step")
    bench.setup.step, bench.setup.stopped_early = 5, True
    assert bench.recorder.save_due()


def test_best_is_the_lowest_loss_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch)
    values = [float("nan"), 0.5, 0.6, 0.5, float("-inf"), 0.4]
    assert [bench.recorder.is_best({"val/loss": value}) for value in values] == [False, True, False, False, False, True]
    assert bench.setup.best == 0.4
    assert not bench.recorder.is_best({"val/accuracy": 1.0})


def test_best_is_the_highest_accuracy_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch, metric="val/accuracy")
    assert [bench.recorder.is_best({"val/accuracy": value}) for value in (0.5, 0.4, 0.6)] == [True, False, True]


def test_no_best_where_none_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch, keepBest=0)
    assert not bench.recorder.is_best({"val/loss": 0.1})


def test_slow_storage_is_told_once_per_save_and_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    for slow in (None, Slow(30, "12:00"), Slow(30, "12:00"), Slow(60, "12:30"), None, None):
        bench.slow = slow
        bench.recorder.look()
    first, second = (
        f"storage has not accepted the checkpoint of step {step} since {since}"
        for step, since in ((30, "12:00"), (60, "12:30"))
    )
    more = "; training continues, and the newest state is saved next"
    assert bench.reported() == [
        (ReportKind.WARNING, first + more),
        (ReportKind.WAITING, first),
        (ReportKind.WARNING, second + more),
        (ReportKind.WAITING, second),
        (ReportKind.WAITING, ""),
    ]


def test_other_ranks_report_and_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch, rank=1)
    bench.slow = Slow(30, "12:00")
    bench.recorder.look()
    bench.recorder.report(ReportKind.STEP)
    bench.recorder.log({"train/loss": 1.0}, ReportKind.VALIDATION)
    bench.recorder.keep([], {})
    bench.recorder.save([], {}, wait=True)
    assert bench.reported() == []
    assert bench.recorder.manager.kept(0) is None, "no copy of the state is made"
    bench.setup.context.run.put(FENCE, b"1")
    bench.recorder.flush()
    assert bench.setup.context.run.get(METRICS) is None
    assert list(tmp_path.rglob("*.json")) == []


def test_report_has_the_newest_value_of_each_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.setup.step = STEPS
    bench.recorder.log({"train/loss": 2.0, "val/loss": 3.0})
    bench.setup.step = STEPS + 1
    bench.recorder.log({"train/loss": 1.0})
    bench.recorder.report(ReportKind.STEP)
    (report,) = bench.recording.reports
    assert report.metrics == {"train/loss": 1.0, "val/loss": 3.0}
    assert (report.step, report.epoch, report.total_steps) == (STEPS + 1, 1, 4 * STEPS)


def test_report_of_a_run_that_stopped_early_is_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.setup.step, bench.setup.stopped_early = 5, True
    bench.recorder.report(ReportKind.DONE)
    assert bench.recording.reports[0].total_steps == 5
