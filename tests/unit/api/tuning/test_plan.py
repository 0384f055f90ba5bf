"""The plan of a search: what it says of rungs and costs is what Optuna's pruners do."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import optuna
import pytest
from trainmaster_api.spec.job import Spec
from trainmaster_api.spec.tuning import Pruning
from trainmaster_api.tuning.plan import brackets_of, expected_promotions, plan_of, validations
from trainmaster_api.validation.validate import validate

from tests.factories import load_example

LR = {"optimizer.lr": {"min": 0.001, "max": 0.1, "scale": "log"}}
BATCH = {"data.batchSize": {"values": [32, 64, 128]}}


def searching(
    space: dict[str, Any], *, duration: str = "9ep", every: str = "1ep", workers: int = 1, **more: Any
) -> Spec:
    job = load_example("search")
    job["spec"]["training"]["loop"] = {"duration": duration, "validateEvery": every}
    job["spec"]["training"]["data"]["batchSize"] = 60
    job["spec"]["cluster"]["workers"]["count"] = workers
    job["spec"]["tuning"] = {"space": space, **more}
    found, problems = validate(job)
    assert found is not None, problems
    return found.spec


def simulated(pruner: Any, trials: int, longest: int, seeds: int) -> dict[int, float]:
    """Have Optuna prune trials whose values are noise; return how many had each validation, on average."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seen: Counter[int] = Counter()
    for seed in range(seeds):
        study, noise = optuna.create_study(study_name=f"s{seed}", pruner=pruner()), random.Random(seed)
        for _ in range(trials):
            trial = study.ask()
            for time in range(1, longest + 1):
                seen[time] += 1
                trial.report(noise.random(), time)
                if trial.should_prune():
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    break
            else:
                seen[longest + 1] += 1
                study.tell(trial, noise.random())
    return {time: count / seeds for time, count in seen.items()}


def reached(brackets: Any, longest: int) -> dict[int, float]:
    """Return how many trials the plan expects to have each validation; one beyond the last: to be complete."""
    found = dict.fromkeys(range(1, longest + 2), 0.0)
    for bracket in brackets:
        for time in found:
            passed = [rung.promoted for rung in bracket.rungs if rung.time < time]
            found[time] += passed[-1] if passed else bracket.trials
    return found


ASHA = {"algorithm": "asha", "minTime": 1, "reductionFactor": 3}


@pytest.mark.parametrize(
    ("pruning", "trials", "longest"),
    [
        (ASHA, 27, 9),
        ({**ASHA, "minTime": 2, "reductionFactor": 2}, 16, 11),
        ({**ASHA, "algorithm": "hyperband"}, 60, 9),
        ({**ASHA, "algorithm": "hyperband", "reductionFactor": 2, "minTime": 3}, 40, 14),
    ],
)
def test_expected_survivors_are_those_of_optuna(pruning: dict[str, Any], trials: int, longest: int) -> None:
    asked = Pruning.model_validate(pruning)

    def pruner() -> Any:
        if asked.algorithm == "asha":
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=asked.min_time, reduction_factor=asked.reduction_factor
            )
        return optuna.pruners.HyperbandPruner(asked.min_time, longest, asked.reduction_factor)

    brackets = brackets_of(asked, trials, longest)
    found, expected = reached(brackets, longest), simulated(pruner, trials, longest, seeds=60)
    for time, number in expected.items():  # a mean of 60 searches, each within a few trials of it
        assert found[time] == pytest.approx(number, rel=0.06, abs=0.4), time
    work = sum(number for time, number in expected.items() if time <= longest)
    assert sum(each.work(longest) for each in brackets) == pytest.approx(work, rel=0.05)


def test_promotions_are_counted_one_by_one() -> None:
    """With factor 2: the first always, the second with 1/2, the third with 1/3, the fourth with 2/4."""
    assert expected_promotions(4, 2) == pytest.approx(1 + 1 / 2 + 1 / 3 + 2 / 4)
    assert expected_promotions(3.5, 2) == pytest.approx(1 + 1 / 2 + 1 / 3 + 2 / 4 / 2)
    assert expected_promotions(0, 2) == 0


def test_rungs_end_with_the_trial() -> None:
    """What could be compared only after the trial's end is no rung."""
    asked = Pruning.model_validate({"algorithm": "asha", "minTime": 2, "reductionFactor": 3})
    (bracket,) = brackets_of(asked, 10, 17)
    assert [rung.time for rung in bracket.rungs] == [2, 6]
    (bracket,) = brackets_of(asked, 10, 18)
    assert [rung.time for rung in bracket.rungs] == [2, 6, 18]
    assert brackets_of(Pruning(algorithm="median"), 10, 18) == ()


def test_cost_without_pruning_is_that_of_all_trials() -> None:
    plan = plan_of(searching(LR, budget={"maxTrials": 12}))
    assert (plan.trials, plan.work, plan.trial_length, plan.unit) == (12, 12, 9, "ep")
    assert plan.points is None
    assert plan.combinations == math.inf
    assert plan_of(searching(LR)).trials == 64


def test_cost_of_a_pruner_without_rungs_is_not_guessed() -> None:
    assert plan_of(searching(LR, pruning={"algorithm": "median"})).work is None


def test_grid_counts_what_keeps_the_constraints() -> None:
    space = {**BATCH, "model.args.dropout": {"min": 0, "max": 0.5, "step": 0.25}}
    plan = plan_of(searching(space, search={"algorithm": "grid"}, constraints=["data.batchSize < 128"]))
    assert (plan.combinations, plan.points, plan.trials) == (9, 6, 6)
    some = plan_of(searching(space, search={"algorithm": "grid"}, budget={"maxTrials": 4}))
    assert (some.points, some.trials) == (9, 4)


def test_a_parameter_that_does_not_exist_makes_no_further_points() -> None:
    space = {
        "optimizer.name": {"values": ["sgd", "adamw"]},
        "optimizer.args.momentum": {"values": [0.8, 0.9], "when": {"optimizer.name": ["sgd"]}},
    }
    plan = plan_of(searching(space))
    assert (plan.combinations, plan.points) == (4, 3)


def test_a_large_space_is_not_counted_one_by_one() -> None:
    space = {"loop.seed": {"min": 0, "max": 999_999}, **BATCH}
    assert plan_of(searching(space)).points == 3_000_000
    assert plan_of(searching(space, constraints=["loop.seed > 5"])).points is None


@pytest.mark.parametrize(
    ("workers", "trial", "budget", "expected"),
    [
        (4, 1, {}, (4, 4)),
        (5, 2, {}, (2, 2)),
        (4, 1, {"maxParallel": 2}, (4, 2)),
        (4, 1, {"maxTrials": 3}, (4, 3)),
    ],
)
def test_parallel_is_what_fits(workers: int, trial: int, budget: dict[str, int], expected: tuple[int, int]) -> None:
    plan = plan_of(searching(LR, workers=workers, trial={"workers": trial}, budget=budget))
    assert (plan.fits, plan.parallel) == expected


@pytest.mark.parametrize(
    ("duration", "every", "most", "expected"),
    [
        ("9ep", "1ep", None, 9), ("9ep", "2ep", None, 5), ("1000step", "100step", None, 10),
        ("1000step", "1ep", None, None), ("1000step", "1ep", 7, 7), ("9ep", "1ep", 4, 4), ("9ep", "1ep", 40, 9),
    ],
)  # fmt: skip
def test_validations_of_a_trial(duration: str, every: str, most: int | None, expected: int | None) -> None:
    pruning = {"algorithm": "asha", **({"maxTime": most} if most else {})}
    spec = searching(LR, duration=duration, every=every, pruning=pruning)
    assert validations(spec) == expected
    plan = plan_of(spec)
    assert (plan.work is None) == (expected is None)
    whole = {"9ep": {"1ep": 9, "2ep": 9}, "1000step": {"100step": 1000}}[duration].get(every)
    assert plan.trial_length == (4 if most == 4 else whole)
