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
from tests.unit.trainer.harness import Recording, run_store, small_job, train, weights

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
    job = small_job({"spec.training.loop": {"duration": "20ep", "seed": 3}})
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


def test_complete_run_started_again_trains_no_step(tmp_path: Path) -> None:
    job = small_job({"spec.training.loop.duration": "2ep"})
    first = train(job, tmp_path)
    recording = Recording()
    again = train(job, tmp_path, attempt=2, recording=recording)
    assert again.test_metrics == first.test_metrics
    resumed = next(report for report in recording.reports if report.kind is ReportKind.RESUMED)
    newest = [line for line in metrics(job, tmp_path) if "val/accuracy" in line][-1]
    assert resumed.metrics["val/accuracy"] == newest["val/accuracy"], "known before the next validation"
    assert not [name for name in resumed.metrics if name.startswith("test/") or name in ("step", "epoch")]
    assert not [report for report in recording.reports if report.kind is ReportKind.FIRST_STEP]


CONSTANT = {"name": "constant", "warmup": "10step"}


def last_weights(job: TrainingJob, root: Path, step: int) -> list[bytes]:
    """Weights of the checkpoint of a step, of whichever attempt."""
    store = run_store(job, root)
    paths = [path for path, _ in store.list("checkpoints") if path.endswith(f"-{step:07d}/model.safetensors")]
    return [store.get(path) or b"" for path in paths]


def test_extended_run_equals_one_that_was_longer(tmp_path: Path) -> None:
    """With a rate that doesn't depend on the length, and dropout: not a bit differs, in weights or in moments."""
    short, long = (
        small_job(
            {
                "spec.training.schedule": CONSTANT,
                "spec.training.loop": {"duration": duration, "clipNorm": 1.0, "seed": 3},
            }
        )
        for duration in ("4ep", "9ep")
    )
    train(long, tmp_path / "whole")
    first = train(short, tmp_path / "grown")
    assert (first.outcome, first.step) == (Outcome.COMPLETE, 88)
    recording = Recording()
    grown = train(long, tmp_path / "grown", attempt=2, recording=recording)
    assert (grown.outcome, grown.step, grown.total_steps) == (Outcome.COMPLETE, 198, 198)
    assert next(r.step for r in recording.reports if r.kind is ReportKind.RESUMED) == 88
    assert last_weights(long, tmp_path / "grown", 198) == last_weights(long, tmp_path / "whole", 198) != []
    assert weights(long, tmp_path / "grown") == weights(long, tmp_path / "whole"), "the packaged model is the new one"
    validated = [
        {line["step"]: line["val/loss"] for line in metrics(long, tmp_path / name) if "val/loss" in line}
        for name in ("grown", "whole")
    ]
    assert validated[0] == validated[1]
    assert sum("test/loss" in line for line in metrics(long, tmp_path / "grown")) == 1
    asked = json.loads(run_store(long, tmp_path / "grown").get("spec.json") or b"")
    assert asked["spec"]["training"]["loop"]["duration"] == "9ep", "what was asked is what was done"


def test_extended_run_takes_the_rate_of_the_longer_run(tmp_path: Path) -> None:
    """Cosine: the first part was trained for another length. The rate jumps to that of the longer run."""
    short, long = (small_job({"spec.training.loop": {"duration": duration, "seed": 3}}) for duration in ("4ep", "9ep"))
    train(short, tmp_path / "grown")
    recording = Recording()
    assert train(long, tmp_path / "grown", attempt=2, recording=recording).step == 198
    train(long, tmp_path / "whole")
    rates = [
        {line["step"]: line["train/lr"] for line in metrics(long, tmp_path / name) if "train/lr" in line}
        for name in ("grown", "whole")
    ]
    assert rates[0][88] == 0, "the end of the short run"
    assert all(rates[0][step] == rates[1][step] for step in range(89, 199) if step in rates[0])
    assert weights(long, tmp_path / "grown") != weights(long, tmp_path / "whole")


def test_extended_run_that_stopped_early_stays_stopped(tmp_path: Path) -> None:
    def early(duration: str) -> TrainingJob:
        stopping = {"metric": "val/loss", "patience": 2, "minDelta": 10.0}
        return small_job({"spec.training.loop": {"duration": duration, "earlyStopping": stopping}})

    assert train(early("40ep"), tmp_path).step == 66
    again = train(early("80ep"), tmp_path, attempt=2)
    assert (again.outcome, again.step) == (Outcome.COMPLETE, 66)


def run_and_kill(root: Path, attempt: int, saves: int, delay: float, job: str = "long") -> int:
    """SIGKILL soon after so many checkpoints were committed; return the step that it began with."""
    command = [sys.executable, "-m", "tests.unit.trainer.backends.torch.killable", str(root), str(attempt), job]
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
    assert began == sorted(set(began)), "each attempt gets further than the one before"
    assert ended.outcome is Outcome.COMPLETE
    assert weights(job, root) == weights(job, tmp_path / "whole")
    assert metrics(job, root) == metrics(job, tmp_path / "whole")
    orphans = {path.split("/")[1] for path, _ in run_store(job, root).list("checkpoints")}
    assert len(orphans) <= 3 + 1  # keep 3, keepBest 1
