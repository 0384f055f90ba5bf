"""Every example trains, here and in one process, and is as good as its set is known to be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from trainmaster_api.messages import Outcome
from trainmaster_api.validation.validate import validate
from trainmaster_trainer.backends.torch.loop import fit
from trainmaster_trainer.context import ReportKind

from tests.unit.trainer.harness import Recording, make_context

EXAMPLES = Path(__file__).parents[3] / "examples"


def trained(file: Path, tmp_path: Path) -> tuple[dict[str, float], Recording]:
    """Test metrics and reports of a job as it stands in its file, on one worker."""
    asked = yaml.safe_load(file.read_text())
    asked["metadata"]["uid"] = "u"
    job, problems = validate(asked)
    assert job is not None, problems
    recording = Recording()
    context = dataclasses.replace(make_context(job, tmp_path, recording=recording), base_dir=file.parent)
    result = fit(context)
    assert result.outcome is Outcome.COMPLETE
    return result.test_metrics, recording


# What is known of each set, less three standard errors of its test split.
KNOWN = {
    "titanic/trainingjob.yaml": ("test/accuracy", 0.79 - 3 * 0.036),
    "titanic/by-ticket.yaml": ("test/accuracy", 0.79 - 3 * 0.029),
    "own-dataset/trainingjob.yaml": ("test/accuracy", 0.975 - 3 * 0.012),
    "iris-parquet/trainingjob.yaml": ("test/accuracy", 0.95 - 3 * 0.05),
}


@pytest.mark.parametrize("name", KNOWN)
def test_example_is_as_good_as_its_set_is_known_to_be(name: str, tmp_path: Path) -> None:
    metrics, recording = trained(EXAMPLES / name, tmp_path)
    metric, least = KNOWN[name]
    assert metrics[metric] >= least
    (said,) = [report.message for report in recording.reports if report.kind is ReportKind.DATA]
    assert "rows" in said
