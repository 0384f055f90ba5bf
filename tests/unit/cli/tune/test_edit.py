"""The number of trials in the text of a file; everything else stays as its user has written it."""

from __future__ import annotations

import json

import pytest
from trainmaster_api.tuning.budget import Limit
from trainmaster_cli.tune.edit import NoPlaceError, with_limit

HEAD = "# a search\nspec:\n  tuning:\n"
TRIALS, SHORT = ("tuning", "budget", "maxTrials"), ("hyperparameterSearch", "budget")


def with_trials(text: str, trials: int) -> str:
    return with_limit(text, Limit(TRIALS, trials))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("    budget:\n      maxTrials: 8  # few\n", "    budget:\n      maxTrials: 12  # few\n"),
        ("    budget: {maxHours: 2, maxTrials: 8}\n", "    budget: {maxHours: 2, maxTrials: 12}\n"),
        ("    budget: {maxHours: 2}  # a night\n", "    budget: {maxTrials: 12, maxHours: 2}  # a night\n"),
        ("    budget: {}\n", "    budget: {maxTrials: 12}\n"),
        (
            "    budget:\n      # a night\n      maxHours: 2\n",
            "    budget:\n      # a night\n      maxTrials: 12\n      maxHours: 2\n",
        ),
        ("    # what\n    space: {}\n", "    # what\n    budget: {maxTrials: 12}\n    space: {}\n"),
        ("    budget:\r\n      maxHours: 2\r\n", "    budget:\r\n      maxTrials: 12\r\n      maxHours: 2\r\n"),
    ],
)
def test_only_the_number_is_changed(before: str, after: str) -> None:
    assert with_trials(HEAD + before + "  training: {}  # ü\n", 12) == HEAD + after + "  training: {}  # ü\n"


def test_a_tuning_in_braces() -> None:
    assert with_trials("spec: {tuning: {space: {}}}", 3) == "spec: {tuning: {budget: {maxTrials: 3}, space: {}}}"


@pytest.mark.parametrize("budget", [{"maxTrials": 8}, {"maxHours": 2}, {}, None])
def test_json_stays_json(budget: dict[str, int] | None) -> None:
    tuning = {"space": {}, **({} if budget is None else {"budget": budget})}
    text = with_trials(json.dumps({"spec": {"tuning": tuning}}, indent=1), 12)
    assert json.loads(text) == {"spec": {"tuning": {**tuning, "budget": {**(budget or {}), "maxTrials": 12}}}}


def test_what_an_alias_stands_for_is_not_changed() -> None:
    """The other one would change with it."""
    text = "other: &b {maxTrials: 8}\nspec:\n  tuning:\n    budget: *b\n"
    with pytest.raises(NoPlaceError):
        with_trials(text, 12)


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ("{method: random, budget: 8}  # few", 12, "{method: random, budget: 12}  # few"),
        ("{method: random, budget: '8'}", 12, "{method: random, budget: '12'}"),
        ("\n    budget: 2h  # a night\n    method: random", "12h", "\n    budget: 12h  # a night\n    method: random"),
        ('{"method": "random", "budget": "2h"}', "90m", '{"method": "random", "budget": "90m"}'),
    ],
)
def test_the_budget_of_a_search_in_two_lines(before: str, value: int | str, after: str) -> None:
    head = "spec:\n  hyperparameterSearch: "
    assert with_limit(f"{head}{before}\n", Limit(SHORT, value)) == f"{head}{after}\n"
