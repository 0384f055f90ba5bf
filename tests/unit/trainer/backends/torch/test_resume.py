"""A run that was stopped or killed ends with the same weights and the same metrics as one that was left alone."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from trainmaster_api.layout import METRICS
from trainmaster_api.messages import Outcome
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.context import ReportKind

from tests.unit.trainer.backends.torch.killable import long_job
from tests.unit.trainer.harness import Recording, make_job, run_store, train, weights

ROOT = Path(__file__).parents[5]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of several threads are added up in another order than those of one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def metrics(job: TrainingJob, root: Path) -> list[dict[str, float]]:
    content = run_store(job, root).get(METRICS)
    assert content is not None
    return [json.loads(line) for line in content.splitlines()]


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    job = make_job(training__loop={"duration": "20ep", "seed": 3})
    train(job, tmp_path / "whole")
    stopped = train(job, tmp_path / "parts", recording=Recording(stop_at=5))
    assert stopped.outcome is Outcome.STOPPED
    assert stopped.checkpoint is not None
    assert 5 <= stopped.step == stopped.checkpoint.step < 440
    recording = Recording()
    ended = train(job, tmp_path / "parts", attempt=2, recording=recording)
    assert ended.outcome is Outcome.COMPLETE
    resumed = next(report for report in recording.reports if report.kind is ReportKind.RESUMED)
    assert resumed.step == stopped.step
    assert weights(job, tmp_path / "parts") == weights(job, tmp_path / "whole")
    assert metrics(job, tmp_path / "parts") == metrics(job, tmp_path / "whole")


def test_a_complete_run_that_is_started_again_trains_no_step(tmp_path: Path) -> None:
    job = make_job(training__loop__duration="2ep")
    first = train(job, tmp_path)
    recording = Recording()
    again = train(job, tmp_path, attempt=2, recording=recording)
    assert again.test_metrics == first.test_metrics
    resumed = next(report for report in recording.reports if report.kind is ReportKind.RESUMED)
    newest = [line for line in metrics(job, tmp_path) if "val/accuracy" in line][-1]
    assert resumed.metrics["val/accuracy"] == newest["val/accuracy"], "known before the next validation"
    assert not [name for name in resumed.metrics if name.startswith("test/") or name in ("step", "epoch")]
    assert not [report for report in recording.reports if report.kind is ReportKind.FIRST_STEP]


def run_and_kill(root: Path, attempt: int, saves: int, delay: float) -> int:
    """SIGKILL a moment after so many checkpoints were committed; the step that it began with."""
    command = [sys.executable, "-m", "tests.unit.trainer.backends.torch.killable", str(root), str(attempt)]
    paths = os.pathsep.join([str(ROOT / "crds"), str(ROOT / "trainer"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    began = -1
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            kind, step = line.split()
            if kind == ReportKind.RESUMED:
                began = int(step)
            saves -= kind == ReportKind.CHECKPOINT
            if saves == 0:
                time.sleep(delay)  # anywhere: in a step, in a save, between the two
                process.kill()
                break
    assert process.returncode == -9, "it ended before it could be killed"
    return began


@pytest.mark.parametrize("seed", range(3))
def test_two_kills_anywhere_change_no_bit(tmp_path: Path, seed: int) -> None:
    job, dice = long_job(), random.Random(seed)
    train(job, tmp_path / "whole")
    root = tmp_path / "killed"
    began = [run_and_kill(root, attempt, dice.randint(2, 15), dice.uniform(0, 0.03)) for attempt in (1, 2)]
    recording = Recording()
    ended = train(job, root, attempt=3, recording=recording)
    began.append(next(report.step for report in recording.reports if report.kind is ReportKind.RESUMED))
    assert began == sorted(set(began)), "each attempt goes on further than the one before"
    assert ended.outcome is Outcome.COMPLETE
    assert weights(job, root) == weights(job, tmp_path / "whole")
    assert metrics(job, root) == metrics(job, tmp_path / "whole")
    orphans = {path.split("/")[1] for path, _ in run_store(job, root).list("checkpoints")}
    assert len(orphans) <= 3 + 1  # keep 3, keepBest 1
