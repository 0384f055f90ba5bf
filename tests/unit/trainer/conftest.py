from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer import references

from tests.factories import load_example, parse


@pytest.fixture
def job() -> TrainingJob:
    """The digits example as the operator hands it to a pod."""
    return parse(load_example("digits", {"metadata.uid": "0f3c9a1b", "spec.storage": {"uri": "s3://bucket/prefix"}}))


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
