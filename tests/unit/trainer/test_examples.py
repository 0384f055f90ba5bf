"""Every example trains, here and in one process, and is as good as its set is known to be."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from trainmaster_api.messages import Outcome
from trainmaster_api.validation.validate import validate
from trainmaster_trainer.backends.torch.loop import fit
from trainmaster_trainer.context import ReportKind

from tests.unit.trainer.backends.script.launching import Run
from tests.unit.trainer.harness import Recording, make_context

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small models are faster so, and on a busy machine by far."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_data() -> Any:
    """The script that writes the data of the examples."""
    spec = importlib.util.spec_from_file_location("make_data", EXAMPLES / "make_data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trained(file: Path, tmp_path: Path) -> tuple[dict[str, float], Recording]:
    """Test metrics and reports of a job as it stands in its file, on one worker."""
    folder = file.parent
    if folder.name == "text-docstrings":  # its data isn't in the repository
        folder = tmp_path / "data"
        folder.mkdir()
        make_data().documentation(folder / "docstrings.jsonl.gz")
    asked = yaml.safe_load(file.read_text())
    asked["metadata"]["uid"] = "u"
    job, problems = validate(asked)
    assert job is not None, problems
    recording = Recording()
    context = dataclasses.replace(make_context(job, tmp_path, recording=recording), base_dir=folder, code_dir=folder)
    result = fit(context)
    assert result.outcome is Outcome.COMPLETE
    return result.test_metrics, recording


# What is known of each set, less three standard errors of its test split.
KNOWN = {
    "titanic/trainingjob.yaml": ("test/accuracy", 0.79 - 3 * 0.036),
    "titanic/by-ticket.yaml": ("test/accuracy", 0.79 - 3 * 0.029),
    "own-dataset/trainingjob.yaml": ("test/accuracy", 0.975 - 3 * 0.012),
    "iris-parquet/trainingjob.yaml": ("test/accuracy", 0.95 - 3 * 0.05),
    "mnist-images/trainingjob.yaml": ("test/accuracy", 0.96 - 3 * 0.009),
    "text-docstrings/trainingjob.yaml": ("test/accuracy", 0.748 - 3 * 0.016),  # TF-IDF and logistic regression
}


@pytest.mark.parametrize("name", KNOWN)
def test_example_is_as_good_as_its_set_is_known_to_be(name: str, tmp_path: Path) -> None:
    metrics, recording = trained(EXAMPLES / name, tmp_path)
    metric, least = KNOWN[name]
    assert metrics[metric] >= least
    (said,) = [report.message for report in recording.reports if report.kind is ReportKind.DATA]
    assert "rows" in said


def test_example_recipe_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The accuracy of logistic regression on these rows, less three standard errors of 270 rows."""
    monkeypatch.syspath_prepend(EXAMPLES / "recipe")
    metrics, _ = trained(EXAMPLES / "recipe" / "trainingjob.yaml", tmp_path)
    assert metrics["test/accuracy"] >= 0.95 - 3 * 0.013


def test_example_script_trains_and_resumes(tmp_path: Path) -> None:
    """A program that knows nothing of us; accuracy of logistic regression on these rows, less three standard errors."""
    folder = EXAMPLES / "script"
    asked = yaml.safe_load((folder / "trainingjob.yaml").read_text())
    asked["metadata"]["uid"] = "u"
    job, problems = validate(asked)
    assert job is not None, problems
    run = Run(tmp_path, 1, folder, **asked["spec"]["training"]["script"])
    run.start()
    run.until(lambda: bool(run.commits))
    run.kill()
    run.start(new_disks=True)
    run.finish()
    assert list(run.model()) == ["checkpoints/last.pt"]
    assert run.results[0]["step"] == 30 * 22, "1400 rows in batches of 64"
    assert float(run.log().rpartition("accuracy ")[2]) >= 0.91 - 3 * 0.014


def test_example_lightning_trains(tmp_path: Path) -> None:
    """No program; the accuracy of logistic regression on these rows, less three standard errors of 270 rows."""
    folder = EXAMPLES / "lightning"
    asked = yaml.safe_load((folder / "trainingjob.yaml").read_text())
    asked["metadata"]["uid"] = "u"
    job, problems = validate(asked)
    assert job is not None, problems
    run = Run(tmp_path, 1, folder)
    (tmp_path / "job.json").write_text(json.dumps(asked))
    run.start()
    run.finish()
    assert run.results[0]["step"] == 8 * 20, "1258 rows in batches of 64"
    assert run.results[0]["testMetrics"]["test/accuracy"] >= 0.95 - 3 * 0.013
