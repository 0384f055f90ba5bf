from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.validation.validate import validate
from trainmaster_trainer import references

EXAMPLE = Path(__file__).parents[3] / "examples/digits/trainingjob.yaml"


@pytest.fixture
def job() -> TrainingJob:
    data = yaml.safe_load(EXAMPLE.read_text())
    data["metadata"]["uid"] = "0f3c9a1b"
    data["spec"]["storage"] = {"uri": "s3://bucket/prefix"}
    found, problems = validate(data)
    assert found is not None, problems
    return found


@pytest.fixture(autouse=True)
def no_code_of_other_tests() -> Iterator[None]:
    """A rank ends with its job; here one process runs many, and a folder of the one must not serve the next."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    folders = list(references.FOLDERS)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if file and any(Path(file).is_relative_to(folder) for folder in folders):
            del sys.modules[name]
    references.FOLDERS.clear()
    references.USER_PACKAGES.clear()
