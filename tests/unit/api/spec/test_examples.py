"""Every example is valid as it stands, with its data beside it."""

import json
from pathlib import Path

import pytest
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.validation.yaml_reader import validate_text
from trainmaster_cli.files import check_file

ROOT = Path(__file__).parents[4]
GENERATED = "text-docstrings"  # examples/make_data.py writes its data, which others wrote
EXAMPLES = sorted(ROOT.glob("examples/**/*.yaml"))


def test_there_are_examples():
    assert ROOT / "examples/digits/trainingjob.yaml" in EXAMPLES


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.parent.name)
def test_example_is_valid(file):
    (checked,) = check_file(str(file))
    is_there = [problem for problem in checked.problems if "does not exist" not in problem.message]
    assert (is_there if file.parent.name == GENERATED else checked.problems) == []


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.parent.name)
def test_example_leaves_storage_and_tracking_to_the_operator(file):
    ((job, problems),) = validate_text(file.read_text())
    assert job is not None, problems
    assert job.spec.storage.uri is None
    assert [entry.wire() for entry in job.spec.tracking] == [{"mlflow": {}}]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.parent.name)
def test_example_is_the_same_when_it_is_written_and_read_again(file):
    """As text: a number that was whole must stay whole, wherever what it is depends on it."""
    ((job, _),) = validate_text(file.read_text())
    assert job is not None
    again = TrainingJob.model_validate(json.loads(json.dumps(job.wire())))
    assert repr(again) == repr(job)
