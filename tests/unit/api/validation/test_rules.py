"""Each rule's examples against the Python side; tests/integration/test_crd.py has those of the CRD on an API server."""

import pytest
from trainmaster_api.generate.crd import custom_resource_definition
from trainmaster_api.validation.admission import update_problems
from trainmaster_api.validation.checks import CHECKS
from trainmaster_api.validation.constraints import TRANSITIONS
from trainmaster_api.validation.validate import validate

from tests.unit.api.samples import (
    ALL_EXAMPLES,
    CHECK_EXAMPLES,
    DURATIONS,
    FIXED_EXAMPLES,
    FREE,
    TRAINING_EXAMPLES,
    job,
)


def test_ids_are_unique_and_each_check_has_examples():
    assert [check.id for check in CHECKS] == list(CHECK_EXAMPLES)
    assert [rule.field for rule in TRANSITIONS] == list(FIXED_EXAMPLES)


@pytest.mark.parametrize("example", ALL_EXAMPLES)
def test_rule_finds_the_bad_example_and_nothing_else(example):
    path, bad, _ = ALL_EXAMPLES[example]
    found, problems = validate(bad)
    assert found is None
    assert [problem.path for problem in problems] == [path], problems


@pytest.mark.parametrize("example", ALL_EXAMPLES)
def test_rule_accepts_the_good_example(example):
    found, problems = validate(ALL_EXAMPLES[example][2])
    assert not problems
    assert found is not None


@pytest.mark.parametrize("field", FIXED_EXAMPLES)
def test_fixed_field_cannot_change(field):
    before, after = FIXED_EXAMPLES[field]
    changes = update_problems(job(before, after), job(before))
    assert [problem.path for problem in changes] == [f"spec.{field}"]
    assert update_problems(job(before), job(before)) == []


@pytest.mark.parametrize(("before", "after"), TRAINING_EXAMPLES)
def test_no_part_of_the_training_can_change(before, after):
    assert "spec.training" in [problem.path for problem in update_problems(job(before, after), job(before))]


@pytest.mark.parametrize(("before", "after", "allowed"), DURATIONS)
def test_a_run_may_be_made_longer(before, after, allowed):
    old, new = (job({"spec.training.loop.duration": duration}) for duration in (before, after))
    problems = update_problems(new, old)
    assert [problem.path for problem in problems] == ([] if allowed else ["spec.training.loop.duration"])


REFUSED = {"status": {"reason": "InvalidSpec", "attempt": 0}}


def test_fixed_fields_may_change_before_the_first_attempt():
    wrong, right = {"spec.training.model.args": {"hiden": [8]}}, {"spec.training.model.args": {"hidden": [8]}}
    assert update_problems(job(right), job(wrong, REFUSED)) == []
    for status in ({}, {"reason": "Training", "attempt": 0}, {"reason": "InvalidSpec", "attempt": 1}):
        changed = update_problems(job(right), job(wrong, {"status": status}))
        assert [problem.path for problem in changed] == ["spec.training"], status


def test_everything_else_may_change():
    assert update_problems(job(FREE), job()) == []


def test_a_default_written_out_is_no_change():
    written = job({"spec.checkpoint.metric": "val/loss", "spec.cluster.workers.count": 1, "spec.run.suspend": True})
    assert update_problems(written, job()) == []


def test_the_crd_has_few_rules():
    found = []

    def walk(node):
        if isinstance(node, dict):
            found.extend(rule["rule"] for rule in node.get("x-kubernetes-validations", ()))
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(custom_resource_definition())
    assert len(set(found)) <= 26, found
