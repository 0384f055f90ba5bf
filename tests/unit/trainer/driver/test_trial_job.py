"""Jobs of trials are valid wherever the job of the search came from."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from trainmaster_api.packing import pack
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.tuning.space import axes_of, final_document, trial_document
from trainmaster_api.validation.validate import format_problems
from trainmaster_operator.manifests.meta import resolved
from trainmaster_trainer.driver.trial_job import job_of

from tests.factories import REMOVE, make_job, parse


def searching(folder: Path) -> TrainingJob:
    """Return a job with its code in it, as `trainmaster submit` sends one."""
    folder.mkdir()
    (folder / "train.py").write_text("print(1)\n")
    archive = pack(folder)
    inline = {"sha256": archive.sha256, "data": base64.b64encode(archive.data).decode()}
    return parse(make_job({f"spec.training.{part}": REMOVE for part in ("task", "data", "model")}, {
        "metadata.uid": "u",
        "spec.storage.uri": "s3://bucket/runs",
        "spec.training.code": {"inline": inline},
        "spec.training.script": {"path": "train.py", "parameters": {"lr": 0.1}},
        "spec.tuning": {
            "objectives": [{"metric": "val/loss", "goal": "minimize"}], "space": {"lr": {"min": 0.001, "max": 1.0}},
        },
    }, name="t"))  # fmt: skip


@pytest.mark.parametrize("is_in_a_pod", [False, True])
def test_trial_of_code_that_came_with_the_job(tmp_path: Path, is_in_a_pod: bool) -> None:
    """The operator takes the archive out of what a pod reads."""
    job = searching(tmp_path / "src")
    if is_in_a_pod:
        job = TrainingJob.model_validate(json.loads(resolved(job, whole=True)))
    for document_of in (trial_document, final_document):
        found, problems = job_of(document_of(job, axes_of(job.spec), {"lr": 0.5}))
        assert found is not None, format_problems(problems)
        assert found.spec.training.script is not None
        assert found.spec.training.script.parameters == {"lr": 0.5}
        assert found.spec.training.code == job.spec.training.code


def test_other_problems_are_found(tmp_path: Path) -> None:
    job = TrainingJob.model_validate(json.loads(resolved(searching(tmp_path / "src"), whole=True)))
    document = trial_document(job, axes_of(job.spec), {"lr": 0.5})
    document["spec"]["training"]["loop"] = {"duration": "nonsense"}
    found, problems = job_of(document)
    assert found is None
    assert "spec.training.loop.duration" in format_problems(problems)
