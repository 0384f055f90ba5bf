"""Population-based training of weights that are numbers: who continues from whom follows from the journal alone."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest
from trainmaster_api.spec.tuning import Pruning, Tuning
from trainmaster_api.tuning.space import Axis
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.storage.store import Store, open_store
from trainmaster_trainer.tuning.journal import Journal
from trainmaster_trainer.tuning.population import Member, exploits, explore
from trainmaster_trainer.tuning.study import Study
from trainmaster_trainer.tuning.trials import Suggestion, TrialEnd, run_of

LONGEST, EVERY = 10, 2
GIFT = 100.0
AXES = [
    Axis("lr", "optimizer.lr", "float", 1e-4, 1e-1, is_log=True),
    Axis("drop", "", "choice", values=(0.0, 0.1, 0.2)),
]
Saved = dict[str, tuple[int, float]]


class Killed(Exception):  # noqa: N818 - no error
    """The process is gone."""


def store_of(folder: Any) -> Store:
    return open_store(f"file://{folder}", None, None, {})


def tuning_of(*, budget: dict[str, Any] | None = None, **pruning: Any) -> Tuning:
    return Tuning.model_validate({
        "space": {"x": {"value": 1}},
        "objectives": [{"metric": "val/score", "goal": "maximize", "reduce": "last"}],
        "search": {"algorithm": "random", "seed": 3},
        "pruning": {"algorithm": "pbt", "perturbEvery": EVERY, **pruning},
        "budget": {"maxTrials": 6, **(budget or {})},
    })  # fmt: skip


def steps(study: Study, trial: Suggestion, saved: Saved) -> Any:
    """Train a round of a trial; yields wherever the process may be killed."""
    run = run_of(trial.number, trial.round)
    begin = (0, GIFT if trial.number == 4 else 0.0)
    if trial.source is not None:
        begin = saved[run_of(trial.source, trial.round - 1)]
    time, weight = saved.get(run, begin)
    while time < min(trial.until, LONGEST):
        time, weight = time + 1, weight * 1.01 + trial.values["lr"]
        yield
        study.report(trial.number, time, {"val/score": weight})
        yield
    saved[run] = time, weight
    yield
    study.tell(trial.number, TrialEnd.COMPLETE if time == LONGEST else TrialEnd.PAUSED, seconds=1)
    yield


def train(
    store: Store, saved: Saved, tuning: Tuning, *, parallel: int = 1, most: float = math.inf, seed: int = 0
) -> Study:
    """Train a population; of the trials that run at the same time, chance says which one moves."""
    study = Study(tuning, AXES, Journal(store, 1), LONGEST)
    running: list[Any] = []
    draw, made = random.Random(seed), 0
    while True:
        while len(running) < parallel and (trial := study.ask()) is not None:
            running.append(steps(study, trial, saved))
        if not running:
            return study
        one = draw.choice(running)
        if made == most:
            raise Killed
        made += 1
        if next(one, "over") == "over":
            running.remove(one)


def seen(study: Study) -> list[tuple[Any, ...]]:
    return [(each.number, each.values, each.end, each.objectives, each.time, each.rounds) for each in study.trials()]


def test_killed_population_is_the_undisturbed_one(tmp_path):
    saved: dict[str, Saved] = {"a": {}, "b": {}}
    calm = train(store_of(tmp_path / "a"), saved["a"], tuning_of())
    kills = random.Random(1)
    for _ in range(40):
        try:
            found = train(store_of(tmp_path / "b"), saved["b"], tuning_of(), most=kills.randrange(0, 16))
        except Killed:
            continue
        break
    else:
        found = train(store_of(tmp_path / "b"), saved["b"], tuning_of())
    assert seen(found) == seen(calm)
    assert saved["b"] == saved["a"]
    assert found.best() == calm.best()
    assert Counter(each.end for each in calm.trials()) == {TrialEnd.COMPLETE: 6}
    assert {len(each.rounds) for each in calm.trials()} == {LONGEST // EVERY - 1}


def test_killed_wherever_it_can_be(tmp_path):
    """At each place once, and then to the end: among them, between a round's checkpoint and what the journal has."""
    weights: Saved = {}
    calm = train(store_of(tmp_path / "calm"), weights, tuning_of())
    for most in range(0, 180, 7):
        saved: Saved = {}
        with pytest.raises(Killed):
            train(store_of(tmp_path / str(most)), saved, tuning_of(), most=most)
        assert seen(train(store_of(tmp_path / str(most)), saved, tuning_of())) == seen(calm)
        assert saved == weights


def test_it_does_not_matter_which_trial_is_quicker(tmp_path):
    found = []
    for parallel, seed in ((1, 0), (2, 1), (3, 2), (6, 3), (6, 4)):
        saved: Saved = {}
        study = train(store_of(tmp_path / f"{parallel}-{seed}"), saved, tuning_of(), parallel=parallel, seed=seed)
        found.append((seen(study), saved))
    assert all(each == found[0] for each in found)


def test_only_loaded_weights_reach_the_best(tmp_path):
    """One trial is born better than any other can become: those that are as good have its weights."""
    study = train(store_of(tmp_path), {}, tuning_of())
    good = [each for each in study.trials() if each.objectives[0] > GIFT]
    alone = train(store_of(tmp_path / "alone"), {}, tuning_of(minTime=LONGEST))
    assert [each.number for each in alone.trials() if each.objectives[0] > GIFT] == [4]
    assert len(good) > 1
    for each in good:
        assert each.number == 4 or any(how.source != each.number for how in each.rounds)


def test_the_journal_has_a_round_before_it_takes_effect(tmp_path):
    saved: Saved = {}
    with pytest.raises(Killed):  # all have ended the first round, and the first trial has been asked for again
        train(store_of(tmp_path), saved, tuning_of(), most=6 * (2 * EVERY + 3))
    lines = [line for line in Journal(store_of(tmp_path), 1).read_logs(0) if "rounds" in line.get("user_attr", {})]
    assert len(lines) == 6
    before = {run: value for run, value in saved.items() if run.endswith("1")}
    assert saved == before


@pytest.mark.parametrize("higher", [True, False])
def test_worst_continue_from_the_best(higher):
    scores = [0.1, 0.9, 0.5, math.nan, 0.3, 0.8, 0.2, 0.7]
    members = [Member(number, {"lr": 0.01, "drop": 0.1}, score) for number, score in enumerate(scores)]
    found = exploits(
        members, AXES, Pruning(quantile=0.25), seed=1, round_number=1, higher=higher, is_rejected=lambda _: False
    )
    assert [each.number for each in found] == ([0, 3] if higher else [1, 3])
    assert {each.source for each in found} <= ({1, 5} if higher else {0, 6})


@pytest.mark.parametrize(("count", "quantile", "replaced"), [(2, 0.25, 1), (3, 0.5, 1), (5, 0.25, 2), (1, 0.5, 0)])
def test_how_many_are_replaced(count, quantile, replaced):
    members = [Member(number, {"lr": 0.01, "drop": 0.1}, float(number)) for number in range(count)]
    found = exploits(
        members, AXES, Pruning(quantile=quantile), seed=1, round_number=1, higher=False, is_rejected=lambda _: False
    )
    assert len(found) == replaced


def test_values_are_multiplied_or_drawn():
    near, far = Pruning(resample_probability=0), Pruning(resample_probability=1)
    lr, drop = AXES
    draw = random.Random(0)
    found = {round(explore(lr, 0.01, near, draw), 9) for _ in range(50)}
    assert found == {0.008, 0.012}
    assert {explore(lr, 0.1, near, draw) for _ in range(50)} == {0.08000000000000002, 0.1}  # no further than the range
    assert {explore(drop, 0.1, near, draw) for _ in range(50)} == {0.0, 0.2}
    assert {explore(drop, 0.0, near, draw) for _ in range(50)} == {0.0, 0.1}
    drawn = [explore(lr, 0.01, far, draw) for _ in range(2000)]
    assert all(1e-4 <= each <= 1e-1 for each in drawn)
    assert sum(each < 1e-3 for each in drawn) == pytest.approx(2000 / 3, abs=100)  # a third of the orders of magnitude
    stepped, whole = Axis("s", "", "float", 0.1, 0.75, 0.2), Axis("n", "", "int", 1, 9)
    assert {round(explore(stepped, 0.5, far, draw), 9) for _ in range(200)} == {0.1, 0.3, 0.5, 0.7}
    assert {explore(whole, 5, near, draw) for _ in range(50)} == {4, 6}
    assert {type(explore(whole, 5, far, draw)) for _ in range(50)} == {int}
    assert explore(Axis("c", "", "constant", values=(7,)), 7, far, draw) == 7


def test_constraints_hold_after_a_change(tmp_path):
    tuning = tuning_of().model_copy(update={"constraints": ["lr * 10 >= drop"]})
    found = [how.values for each in train(store_of(tmp_path), {}, tuning).trials() for how in each.rounds]
    assert found
    assert all(each["lr"] * 10 >= each["drop"] for each in found)


def test_trial_that_fails_is_missing_in_its_population(tmp_path):
    study = Study(tuning_of(), AXES, Journal(store_of(tmp_path), 1), LONGEST)
    for number in range(6):
        assert study.ask().number == number
    study.tell(0, TrialEnd.DIVERGED)
    for number in range(1, 6):
        assert study.ask() is None  # until all have ended the round
        for time in range(1, EVERY + 1):
            study.report(number, time, {"val/score": float(number)})
        study.tell(number, TrialEnd.PAUSED)
    assert [study.ask().number for _ in range(5)] == [1, 2, 3, 4, 5]


def test_population_cannot_change(tmp_path):
    train(store_of(tmp_path), {}, tuning_of())
    with pytest.raises(ConfigurationError, match=r"maxTrials = 8: with pbt .* began with 6 trials and can't change"):
        Study(tuning_of(budget={"maxTrials": 8}), AXES, Journal(store_of(tmp_path), 1), LONGEST)


def test_hours_end_it_with_the_best_so_far_and_more_continue_it(tmp_path):
    saved: Saved = {}
    calm = train(store_of(tmp_path / "calm"), saved, tuning_of())
    now, saved = [0.0], {}
    tuning = tuning_of(budget={"maxHours": 1})
    study = Study(tuning, AXES, Journal(store_of(tmp_path), 1), LONGEST, clock=lambda: now[0])
    for _ in range(8):  # the first round, and two trials of the second
        list(steps(study, study.ask(), saved))
    now[0] = 3600
    assert study.ask() is None
    assert study.why_over == "budget.maxHours = 1 are used"
    best = study.best()
    assert best.objectives[0] == max(each.objectives[0] for each in study.trials())
    assert saved[best.run][1] == best.objectives[0]
    assert seen(train(store_of(tmp_path), saved, tuning_of(budget={"maxHours": 9}))) == seen(calm)


def test_a_shorter_time_ends_trials(tmp_path):
    saved: Saved = {}
    study = train(store_of(tmp_path), saved, tuning_of(maxTime=5))
    assert [(each.end, each.time, len(each.rounds)) for each in study.trials()] == [(TrialEnd.COMPLETE, 5, 2)] * 6
