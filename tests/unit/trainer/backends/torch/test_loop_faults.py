"""What must not happen when something else has gone wrong: torn best checkpoints, foreign runs, fenced writers."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from trainmaster_api.layout import BEST, CHECKPOINTS, FENCE, MANIFEST, METRICS, MODEL
from trainmaster_api.messages import Outcome
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.context import Report, ReportKind
from trainmaster_trainer.data import load_data, prepared
from trainmaster_trainer.errors import ConfigurationError, Fenced, NonFiniteLoss

from tests.unit.trainer.harness import Recording, run_store, small_job, train


def lines(root: Path) -> list[dict[str, float]]:
    content = run_store(small_job(), root).get(METRICS)
    assert content is not None
    return [json.loads(line) for line in content.splitlines()]


def test_torn_best_checkpoint_costs_a_warning(tmp_path: Path) -> None:
    job = small_job({"spec.checkpoint.every": "1ep"})
    first = train(job, tmp_path)
    root = Path(first.checkpoint.uri).parents[1] if first.checkpoint else Path()
    best = json.loads((root / BEST).read_text())
    newest = max((root / CHECKPOINTS).iterdir())
    others = [folder for folder in (root / CHECKPOINTS).iterdir() if folder != newest]
    assert others
    for folder in others:
        (folder / "model.safetensors").write_bytes(b"torn")
    # so that a torn one ranks before the one that is whole
    manifest = json.loads((newest / MANIFEST).read_text())
    manifest["metrics"]["val/loss"] = 99.0
    (newest / MANIFEST).write_text(json.dumps(manifest))
    recording = Recording()
    again = train(job, tmp_path, attempt=2, recording=recording)
    assert again.outcome is Outcome.COMPLETE
    warnings = [report.message for report in recording.reports if report.kind is ReportKind.WARNING]
    assert len(warnings) == len(others)
    assert all("skipping it" in text for text in warnings)
    assert best["step"] <= 88


def test_a_split_that_is_not_what_the_default_promises_is_a_warning(tmp_path: Path) -> None:
    rows = [f"{row * 37 % 61},{'often' if row % 10 else 'rare'}" for row in range(60)]  # no two alike
    (tmp_path / "rows.csv").write_text("\n".join(["a,kind", *rows]))
    data = {"source": "rows.csv", "target": "kind", "batchSize": 8}
    task = {"name": "classification", "numClasses": 2}
    recording = Recording()
    train(small_job({"spec.training.data": data, "spec.training.task": task}), tmp_path, recording=recording)
    warnings = [report.message for report in recording.reports if report.kind is ReportKind.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith("split at random, not stratified: class `rare` has 6 rows")


def test_finish_twice_logs_the_test_split_once(tmp_path: Path) -> None:
    job = small_job({"spec.training.loop.duration": "2ep"})
    train(job, tmp_path)
    train(job, tmp_path, attempt=2)
    assert sum("test/loss" in line for line in lines(tmp_path)) == 1


def test_a_run_of_another_shape_is_refused_with_the_shapes(tmp_path: Path) -> None:
    first = train(small_job({"spec.training.loop.duration": "1ep"}), tmp_path / "a")
    assert first.checkpoint is not None
    source = str(Path(first.checkpoint.uri).parents[1])
    other = small_job({"spec.training.model.args": {"hidden": [33]}, "spec.run.resumeFrom": source})
    with pytest.raises(ConfigurationError, match=r"1\.bias is \[32\] there and \[33\] here"):
        train(other, tmp_path / "b")


def test_a_run_with_another_optimizer_is_refused(tmp_path: Path) -> None:
    first = train(small_job({"spec.training.loop.duration": "1ep"}), tmp_path / "a")
    assert first.checkpoint is not None
    source = str(Path(first.checkpoint.uri).parents[1])
    with pytest.raises(ConfigurationError, match=r"use its optimizer\.name"):
        train(small_job({"spec.training.optimizer": {"name": "sgd"}, "spec.run.resumeFrom": source}), tmp_path / "b")


def test_resume_from_another_run_keeps_own_hyperparameters(tmp_path: Path, monkeypatch) -> None:
    first = train(small_job({"spec.training.loop.duration": "1ep"}), tmp_path / "a")
    assert first.checkpoint is not None
    source = str(Path(first.checkpoint.uri).parents[1])
    seen: list[float] = []
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: object) -> object:
        seen.append(self.param_groups[0]["weight_decay"])
        return real(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    job = small_job({"spec.training.optimizer": {"name": "adamw", "weightDecay": 0.5}, "spec.run.resumeFrom": source})
    train(job, tmp_path / "b")
    assert set(seen) == {0.5}
    assert len(seen) == 88 - 22  # the position is the other run's


def test_nothing_to_go_on_from_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"has no valid checkpoint; give the directory of a run"):
        train(small_job({"spec.run.resumeFrom": str(tmp_path / "empty")}), tmp_path)


class FencedLater(Recording):
    """A newer attempt claims the run while this one makes its first step."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def report(self, report: Report) -> None:
        super().report(report)
        if report.kind is ReportKind.FIRST_STEP:
            run_store(small_job(), self.root).put(FENCE, b"9")


def test_a_fenced_writer_leaves_the_run_as_it_is(tmp_path: Path) -> None:
    store = run_store(small_job(), tmp_path)
    with pytest.raises(Fenced, match="attempt 9 has claimed this run"):
        train(small_job(), tmp_path, recording=FencedLater(tmp_path))
    left = {path.split("/")[0] for path, _ in store.list()}
    assert not left & {METRICS, CHECKPOINTS, MODEL, "report", BEST}


def diverging() -> TrainingJob:
    """Its gradients overflow after some hundred steps, and no checkpoint is saved before."""
    return small_job(
        {
            "spec.training.task": {"name": "regression"},
            "spec.training.data": {"source": "sklearn:diabetes", "batchSize": 32},
            "spec.training.optimizer": {"name": "sgd", "lr": 0.9, "args": {"momentum": 0.99}},
            "spec.training.schedule": {"name": "constant", "warmup": "1000step"},
            "spec.training.loop": {"duration": "1000step"},
            "spec.checkpoint": {"every": "1000step", "keepBest": 0},
        },
    )


def test_the_metrics_on_the_way_to_a_failure_are_kept(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss, match=r"lower optimizer\.lr \(now 0\.9\)"):
        train(diverging(), tmp_path)
    found = lines(tmp_path)
    assert len(found) > 3
    assert all(value is None or np.isfinite(value) for line in found for value in line.values())


def test_a_fenced_writer_that_fails_leaves_no_metrics(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss):
        train(diverging(), tmp_path, recording=FencedLater(tmp_path))
    assert run_store(small_job(), tmp_path).get(METRICS) is None


def test_the_collector_is_given_back(tmp_path: Path) -> None:
    train(small_job({"spec.training.loop.duration": "1ep"}), tmp_path)
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("values", [2**22, 50])
def test_statistics_are_the_same_for_any_chunk(tmp_path: Path, monkeypatch, values: int) -> None:
    dice = np.random.default_rng(0)
    pixels = dice.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        folder = tmp_path / "images" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:02}.png")
    monkeypatch.setattr(prepared, "STATISTICS_VALUES", values)
    job = small_job(
        {
            "spec.training.data": {"source": "images:images", "imageSize": 8, "batchSize": 4},
            "spec.training.task": {"name": "classification", "numClasses": 2},
        },
    )
    found = load_data(job, tmp_path, {})
    x = found.rows.batch(found.train)[0].double()
    torch.testing.assert_close(found.mean.flatten().double(), x.mean(dim=(0, 2, 3)), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.std.flatten().double(), x.std(dim=(0, 2, 3), correction=0), atol=1e-6, rtol=0)
    assert found.mean.shape == (3, 1, 1)
