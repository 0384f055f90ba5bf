from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.validation.validate import validate

EXAMPLE = Path(__file__).parents[3] / "examples/digits/trainingjob.yaml"


@pytest.fixture
def job() -> TrainingJob:
    data = yaml.safe_load(EXAMPLE.read_text())
    data["metadata"]["uid"] = "0f3c9a1b"
    data["spec"]["storage"] = {"uri": "s3://bucket/prefix"}
    found, problems = validate(data)
    assert found is not None, problems
    return found
