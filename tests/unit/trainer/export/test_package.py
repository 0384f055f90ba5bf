"""The model that a user takes away computes what training computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from trainmaster_api.layout import TEST_METRICS
from trainmaster_trainer.data import load_data
from trainmaster_trainer.export.package import load_package
from trainmaster_trainer.storage.store import Store

from tests.unit.trainer.harness import run_store, small_job, train


def test_predictor_repeats_the_test_accuracy_on_raw_rows(tmp_path: Path) -> None:
    job = small_job()
    result = train(job, tmp_path)
    data = load_data(job, tmp_path, {})
    x, y = data.rows.batch(data.test)  # as a user has them: not scaled
    predictor = load_package(Store(result.model_uri.removesuffix("/model")))
    accuracy = float((predictor.predict(x) == y).double().mean())
    assert accuracy == pytest.approx(result.test_metrics["test/accuracy"])
    assert predictor.labels == [str(digit) for digit in range(10)]
    report = json.loads(run_store(job, tmp_path).get(TEST_METRICS) or b"")
    assert report["metrics"] == result.test_metrics
    assert report["rows"] == len(data.test)


def test_predictor_regression_is_in_the_unit_of_the_target(tmp_path: Path) -> None:
    job = small_job(
        {
            "spec.training.task": {"name": "regression"},
            "spec.training.data": {"source": "sklearn:diabetes", "batchSize": 32},
            "spec.training.model": {"name": "mlp", "args": {"hidden": [16]}},
            "spec.training.loop": {"duration": "20ep"},
            "spec.training.optimizer": {"name": "adamw", "lr": 0.01},
        },
    )
    result = train(job, tmp_path)
    data = load_data(job, tmp_path, {})
    x, y = data.rows.batch(data.test)
    error = load_package(run_store(job, tmp_path)).predict(x) - y
    assert float((error.double() ** 2).mean().sqrt()) == pytest.approx(result.test_metrics["test/rmse"], rel=1e-5)
    assert result.test_metrics["test/r2"] > 0.2, "it has learnt something"
    assert 30 < result.test_metrics["test/mae"] < result.test_metrics["test/rmse"] < 80


def test_load_package_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the run has no packaged model"):
        load_package(Store(str(tmp_path)))


def test_the_best_checkpoint_is_packaged_and_not_the_last(tmp_path: Path) -> None:
    """A rate that is too high to settle: the last weights are not the best."""
    job = small_job(
        {
            "spec.training.optimizer": {"name": "adamw", "lr": 0.03},
            "spec.training.schedule": {"name": "constant"},
            "spec.training.loop": {"duration": "12ep", "seed": 3},
            "spec.checkpoint.metric": "val/accuracy",
        },
    )
    result = train(job, tmp_path)
    store = run_store(job, tmp_path)
    best, report = json.loads(store.get("BEST") or b""), json.loads(store.get(TEST_METRICS) or b"")
    assert best["step"] == report["step"] < result.step
    lines = [json.loads(line) for line in (store.get("metrics.jsonl") or b"").splitlines()]
    validations = {line["step"]: line["val/accuracy"] for line in lines if "val/accuracy" in line}
    assert best["step"] == max(validations, key=lambda step: (validations[step], -step))
    place = f"checkpoints/a1-step-{best['step']:07d}"
    manifest = json.loads(store.get(f"{place}/manifest.json") or b"")
    assert manifest["metrics"]["val/accuracy"] == max(validations.values())
    saved, packaged = (load(store.get(f"{folder}/model.safetensors") or b"") for folder in (place, "model"))
    assert all(torch.equal(packaged[name], saved[name]) for name in saved)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_predictor_computes_as_the_test_evaluation(tmp_path: Path, precision: str) -> None:
    job = small_job({"spec.training.loop": {"duration": "2ep", "precision": precision}})
    result = train(job, tmp_path)
    data = load_data(job, tmp_path, {})
    x, y = data.rows.batch(data.test)
    predictor = load_package(run_store(job, tmp_path))
    with torch.no_grad():
        output = predictor.model((x - predictor.mean) / predictor.std)
    loss = float(torch.nn.functional.cross_entropy(output, y))
    assert loss == pytest.approx(result.test_metrics["test/loss"], abs=1e-6)
