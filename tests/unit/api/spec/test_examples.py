"""Every example is valid as it stands, with its data beside it."""

from pathlib import Path

import pytest
from trainmaster_cli.files import check_file

ROOT = Path(__file__).parents[4]
EXAMPLES = sorted(ROOT.glob("examples/**/*.yaml"))


def test_there_are_examples():
    assert ROOT / "examples/digits/trainingjob.yaml" in EXAMPLES


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.parent.name)
def test_example_is_valid(file):
    (checked,) = check_file(str(file))
    assert checked.problems == []


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.parent.name)
def test_example_leaves_storage_and_tracking_to_the_operator(file):
    (checked,) = check_file(str(file))
    assert checked.job is not None
    assert checked.job.spec.storage.uri is None
    assert [entry.wire() for entry in checked.job.spec.tracking] == [{"mlflow": {}}]
