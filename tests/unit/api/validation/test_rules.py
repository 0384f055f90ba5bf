"""Each rule's examples against the Python side; tests/integration/test_crd_rules.py has them against the API server."""

import pytest
from trainmaster_api.validation.admission import update_problems
from trainmaster_api.validation.rules import FIXED
from trainmaster_api.validation.validate import validate
from trainmaster_api.validation.variants import all_rules

from tests.unit.api.samples import FIXED_EXAMPLES, FREE, RULE_EXAMPLES, job

RULES = {rule.id: rule for rule in all_rules()}
FIXED_FIELDS = {fixed.field: fixed for fixed in FIXED}


def test_ids_are_unique_and_each_rule_has_examples():
    assert len(RULES) == len(all_rules())
    assert set(RULE_EXAMPLES) == set(RULES)
    assert set(FIXED_EXAMPLES) == set(FIXED_FIELDS)


@pytest.mark.parametrize("rule_id", RULES)
def test_rule_finds_the_bad_example_and_nothing_else(rule_id):
    rule = RULES[rule_id]
    found, problems = validate(RULE_EXAMPLES[rule_id][0])
    assert found is None
    assert [problem.path for problem in problems] == [rule.path]
    if rule.sentence is None:
        assert problems[0].message == rule.message


@pytest.mark.parametrize("rule_id", RULES)
def test_rule_accepts_the_good_example(rule_id):
    found, problems = validate(RULE_EXAMPLES[rule_id][1])
    assert not problems
    assert found is not None


@pytest.mark.parametrize("field", FIXED_FIELDS)
def test_fixed_field_cannot_change(field):
    before, after = FIXED_EXAMPLES[field]
    changes = update_problems(job(before, after), job(before))
    assert f"spec.{field}" in [problem.path for problem in changes]
    assert update_problems(job(before), job(before)) == []


def test_everything_else_may_change():
    assert update_problems(job(FREE), job()) == []


def test_a_default_written_out_is_no_change():
    written = job({"spec.checkpoint.metric": "val/loss", "spec.cluster.workers.count": 1, "spec.run.suspend": True})
    assert update_problems(written, job()) == []
