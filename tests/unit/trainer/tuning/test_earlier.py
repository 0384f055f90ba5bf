"""What a search learns from others: which of their trials count, and that they are added once."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from trainmaster_api.tuning.space import Axis
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.tuning.earlier import Known, search_of, taken
from trainmaster_trainer.tuning.journal import Journal
from trainmaster_trainer.tuning.study import Study

from tests.unit.trainer.tuning.test_study import LONGEST, MIXED, NUMBERS, search, seen, store_of, tuning_of

STEPPED = Axis("n", "", "int", 2, 10, 4)
FIXED = Axis("c", "", "constant", values=(7,))


def known(*values: dict[str, Any], results: tuple[float, ...] = (1.0,)) -> list[Known]:
    return [Known(f"trial {number}", each, results) for number, each in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "fitted"),
    [
        ({"lr": 0.01, "width": 3}, {"lr": 0.01, "width": 3}),
        ({"lr": "0.01", "width": "3"}, {"lr": 0.01, "width": 3}),  # a tracker has texts
        ({"lr": 0.01, "width": 3, "c": 7}, {"lr": 0.01, "width": 3, "c": 7}),
        ({"lr": 1, "width": 3}, "with another lr"),
        ({"lr": "auto", "width": 3}, "with another lr"),
        ({"lr": 0.01, "width": 3.5}, "with another width"),
        ({"lr": 0.01, "width": True}, "with another width"),
        ({"lr": 0.01}, "without width"),
        ({"lr": 0.01, "width": 3, "depth": 1}, "with depth, which is no parameter of this search"),
        ({"lr": 0.01, "width": 3, "c": 8}, "with another c"),
    ],
)
def test_what_fits_a_space(values, fitted):
    axes = [*NUMBERS, FIXED] if "c" in values else NUMBERS
    found = taken(known(values), axes, [False], None)
    if isinstance(fitted, str):
        assert not found.trials
        assert found.left_out == {fitted: 1}
    else:
        (one,) = found.trials
        assert one.values == fitted
        assert type(one.values["width"]) is int


def test_steps_choices_and_conditions():
    values = {"lr": 0.01, "width": 3, "kind": "[1, 2]"}
    (one,) = taken(known(values), MIXED, [False], None).trials
    assert one.values == values | {"kind": [1, 2]}  # no `drop`: it exists with the kind "a"
    assert taken(known(values | {"kind": "a"}), MIXED, [False], None).left_out == {"without drop": 1}
    (one,) = taken(known(values | {"kind": "a", "drop": 0.5}), MIXED, [False], None).trials
    assert one.values["drop"] == 0.5
    assert taken(known(values | {"kind": 1}), MIXED, [False], None).left_out == {"with another kind": 1}
    on = [bool(taken(known({"n": number}), [STEPPED], [False], None).trials) for number in range(1, 12)]
    assert [number for number, fits in enumerate(on, 1) if fits] == [2, 6, 10]


def test_best_of_a_source_and_what_is_said():
    results = [3.0, 1.0, math.nan, 2.0, 5.0, 4.0]
    trials = [Known(f"trial {n}", {"lr": 0.01, "width": n + 1}, (each,)) for n, each in enumerate(results)]
    trials.append(Known("trial 6", {"lr": 5.0, "width": 1}, (0.0,)))
    lower, upper = (taken(trials, NUMBERS, [higher], 2) for higher in (False, True))
    assert [each.name for each in lower.trials] == ["trial 1", "trial 3"]
    assert [each.name for each in upper.trials] == ["trial 4", "trial 5"]
    assert lower.sentence("/runs/a") == (
        "2 trials of /runs/a are known; 3 left out: beyond topK = 2; 1 left out: with another lr; "
        "1 left out: without a result"
    )


@pytest.mark.parametrize("algorithm", ["tpe", "gp"])
def test_search_begins_with_what_another_one_has_found(tmp_path, algorithm):
    """The same optimum: what was learnt is better than a search's own first guesses."""
    first = search(store_of(tmp_path / "a"), tuning_of(budget={"maxTrials": 40}), MIXED)
    trials = search_of(store_of(tmp_path / "a"), tuning_of().objectives)
    assert [each.name for each in trials] == [f"trial {each.number}" for each in first.trials()]
    assert [each.results for each in trials] == [each.objectives for each in first.trials()]
    fitted = taken(trials, MIXED, [False], None).trials
    assert [each.values for each in fitted] == [each.values for each in first.trials()]
    means = []
    for name in ("learnt", "alone"):
        store = store_of(tmp_path / name)
        tuning = tuning_of(search={"algorithm": algorithm, "seed": 11}, budget={"maxTrials": 6})
        if name == "learnt":
            Study(tuning, MIXED, Journal(store, 1), LONGEST).learn(fitted)
        found = search(store, tuning, MIXED)
        means.append(sum(each.objectives[0] for each in found.trials()) / 6)
        assert [each.number for each in found.trials()] == list(range(6))
    assert means[0] < means[1]


def test_earlier_trials_are_added_once(tmp_path):
    fitted = taken(known({"lr": 0.01, "width": 3}, {"lr": 0.02, "width": 4}), NUMBERS, [False], None).trials
    study = Study(tuning_of(), NUMBERS, Journal(store_of(tmp_path), 1), LONGEST)
    assert not study.has_learnt
    study.learn(fitted)
    again = Study(tuning_of(), NUMBERS, Journal(store_of(tmp_path), 1), LONGEST)
    assert again.has_learnt
    assert again.trials() == []
    assert again.best() is None
    lines = [line for line in Journal(store_of(tmp_path), 1).read_logs(0) if "earlier" in json.dumps(line)]
    assert len(lines) == 2


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_killed_search_that_has_learnt_is_the_undisturbed_one(tmp_path, algorithm):
    fitted = taken(known({"lr": 0.01, "width": 3}, {"lr": 0.02, "width": 4}), NUMBERS, [False], None).trials
    tuning = tuning_of(search={"algorithm": algorithm})
    for name in ("a", "b"):
        Study(tuning, NUMBERS, Journal(store_of(tmp_path / name), 1), LONGEST).learn(fitted)
    calm = search(store_of(tmp_path / "a"), tuning, NUMBERS)
    for kill_after in (7, 0, 22):
        search(store_of(tmp_path / "b"), tuning, NUMBERS, kill_after)
    assert seen(search(store_of(tmp_path / "b"), tuning, NUMBERS)) == seen(calm)
    if algorithm == "random":  # what doesn't learn suggests what it would have suggested
        assert seen(search(store_of(tmp_path / "c"), tuning, NUMBERS)) == seen(calm)


def test_searches_that_cannot_be_learnt_from(tmp_path):
    with pytest.raises(ConfigurationError, match=r"has no search \(no tuning/journal-\*\.jsonl\); give the directory"):
        search_of(store_of(tmp_path / "none"), tuning_of().objectives)
    search(store_of(tmp_path / "a"), tuning_of(budget={"maxTrials": 2}), NUMBERS)
    before = store_of(tmp_path / "a").list("")
    other = tuning_of(objectives=[{"metric": "val/accuracy"}])
    with pytest.raises(
        ConfigurationError,
        match=r"has val/loss \(minimize, best\), and this one val/accuracy \(maximize, best\): not comparable",
    ):
        search_of(store_of(tmp_path / "a"), other.objectives)
    assert store_of(tmp_path / "a").list("") == before
