"""Entries of spec.tracking: one tracker each, completed by defaults, with a name of their own."""

from __future__ import annotations

from typing import Any

import pytest
from trainmaster_api.spec.tracking import KINDS, Mlflow, Tracker, merge, names
from trainmaster_api.validation.validate import validate

from tests.unit.api.samples import job


def entries(*found: dict[str, Any]) -> list[Tracker]:
    return [Tracker.model_validate(entry) for entry in found]


def test_kind_and_settings() -> None:
    server, own = entries({"mlflow": {"uri": "http://m"}}, {"class": "a.b:Csv", "args": {"path": "x"}})
    assert (server.kind, server.settings) == ("mlflow", Mlflow(uri="http://m"))
    assert (own.kind, own.settings, own.reference) == ("class", None, "a.b:Csv")
    assert KINDS == ("mlflow",)


def test_what_a_job_says_wins_over_the_default() -> None:
    own = entries({"mlflow": {"experiment": "mine"}}, {"class": "a:B"}, {"mlflow": {"uri": "http://mine"}})
    defaults = entries({"mlflow": {"uri": "http://default", "experiment": "default"}})
    assert [entry.wire() for entry in merge(own, defaults)] == [
        {"mlflow": {"uri": "http://default", "experiment": "mine"}},
        {"class": "a:B"},
        {"mlflow": {"uri": "http://mine", "experiment": "default"}},
    ]
    assert merge(own, []) == own
    assert merge([], defaults) == []


def test_every_tracker_has_a_name_of_its_own() -> None:
    found = entries({"mlflow": {}}, {"class": "a:Csv"}, {"mlflow": {}}, {"class": "b:Csv"}, {"class": "c:mlflow"})
    assert names(found) == ["mlflow", "Csv", "mlflow-2", "Csv-2", "mlflow-3"]


@pytest.mark.parametrize(
    ("tracking", "sentence"),
    [
        ({"mlflow": {}}, 'spec.tracking = {"mlflow": {}}: must be a list of at most 8 items'),
        ([{}], "spec.tracking[0]: needs exactly one of mlflow, class"),
        ([{"mlflow": {}, "class": "a:B"}], "spec.tracking[0]: needs exactly one of mlflow, class"),
        ([{"wandb": {}}], "spec.tracking[0].wandb = {}: unknown field: known fields are mlflow, class, args"),
        (
            [{"class": "no-module"}],
            'spec.tracking[0].class = "no-module": must be a string such as my_package.module:Name',
        ),
        ([{"mlflow": {}, "args": {"a": 1}}], "spec.tracking[0].args: are those of `class`"),
        ([{"mlflow": {"ur": "x"}}], 'spec.tracking[0].mlflow.ur = "x": unknown field; did you mean `uri`?'),
        (
            [{"mlflow": {"uri": "mlflow:5000"}}],
            'spec.tracking[0].mlflow.uri = "mlflow:5000": must be a string such as http://',
        ),
        ([{"mlflow": {}}] * 9, "spec.tracking = "),
    ],
)
def test_a_mistake_is_one_sentence(tracking: Any, sentence: str) -> None:
    _, problems = validate(job({"spec.tracking": tracking}))
    assert len({str(problem) for problem in problems}) == 1, problems
    assert str(problems[0]).startswith(sentence)
