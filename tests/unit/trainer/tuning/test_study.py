"""Searches over curves that are computed: their results follow from the journal, whatever interrupts them."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from trainmaster_api.spec.tuning import Tuning
from trainmaster_api.tuning.space import Axis
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.storage.store import Store, open_store
from trainmaster_trainer.tuning.algorithms import sampler
from trainmaster_trainer.tuning.journal import Journal
from trainmaster_trainer.tuning.study import Study
from trainmaster_trainer.tuning.trials import Decision, TrialEnd

LONGEST = 9
NUMBERS = [Axis("lr", "optimizer.lr", "float", 1e-4, 1e-1, is_log=True), Axis("width", "", "int", 1, 9)]
MIXED = [
    *NUMBERS,
    Axis("kind", "", "choice", values=("a", [1, 2], True)),
    Axis("drop", "", "float", 0, 1, when={"kind": ("a",)}),
]
GRID = [Axis("lr", "", "choice", values=(1e-3, 1e-2, 1e-1)), Axis("width", "", "int", 1, 5)]
SPACES = {"cmaes": NUMBERS, "sobol": NUMBERS, "gp": NUMBERS, "grid": GRID}


def curve(values: dict[str, Any], time: int) -> float:
    return abs(math.log10(values["lr"]) + 2) + abs(values["width"] - 4) / 9 + values.get("drop", 0.3) / time


def store_of(folder: Any) -> Store:
    return open_store(f"file://{folder}", None, None, {})


def tuning_of(**more: Any) -> Tuning:
    return Tuning.model_validate({"space": {"x": {"value": 1}}, "budget": {"maxTrials": 16}, **more})


def search(store: Store, tuning: Tuning, axes: list[Axis], most_reports: float = math.inf) -> Study:
    """Run one trial after another; `most_reports`: after so many the process is killed."""
    study, reports = Study(tuning, axes, Journal(store, 1), LONGEST), 0
    while (trial := study.ask()) is not None:
        for time in range(1, LONGEST + 1):
            if reports == most_reports:
                return study
            reports += 1
            if study.report(trial.number, time, {"val/loss": curve(trial.values, time)}) is Decision.PRUNE:
                study.tell(trial.number, TrialEnd.PRUNED, seconds=1)
                break
        else:
            study.tell(trial.number, TrialEnd.COMPLETE, seconds=1)
    return study


def seen(study: Study) -> list[tuple[Any, ...]]:
    return [(each.number, each.values, each.end, each.objectives, each.time) for each in study.trials()]


@pytest.mark.parametrize("pruning", ["none", "asha", "hyperband", "median"])
@pytest.mark.parametrize("algorithm", ["random", "grid", "tpe", "gp", "cmaes", "sobol", "nsga2"])
def test_killed_search_is_the_undisturbed_one(tmp_path, algorithm, pruning):
    if algorithm == "gp" and pruning != "asha":
        pytest.skip("a Gaussian process takes half a second for each suggestion; one pruner shows it")
    axes = SPACES.get(algorithm, MIXED)
    tuning = tuning_of(search={"algorithm": algorithm, "seed": 3}, pruning={"algorithm": pruning})
    calm = search(store_of(tmp_path / "a"), tuning, axes)
    for kill_after in (7, 13, 1, 0, 22):
        search(store_of(tmp_path / "b"), tuning, axes, kill_after)
    found = search(store_of(tmp_path / "b"), tuning, axes)
    assert seen(found) == seen(calm)
    assert found.best() == calm.best()
    assert len(seen(found)) == min(16, 15 if algorithm == "grid" else 16)


def test_random_and_asha_are_those_of_optuna(tmp_path):
    """Optuna's own loop with its own pruner, and our seeds: the same trials, values and ends."""
    tuning = tuning_of(search={"algorithm": "random", "seed": 5}, pruning={"algorithm": "asha"})
    ours = search(store_of(tmp_path), tuning, NUMBERS)
    study = optuna.create_study(pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3))

    def objective(trial: optuna.Trial) -> float:
        values = {"lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True), "width": trial.suggest_int("width", 1, 9)}
        for time in range(1, LONGEST + 1):
            trial.report(curve(values, time), time)
            if trial.should_prune():
                raise optuna.TrialPruned
        return min(curve(values, time) for time in range(1, LONGEST + 1))

    for number in range(16):
        study.sampler = sampler(tuning.search, number)
        study.optimize(objective, n_trials=1)
    expected = [(each.params, each.state.name, len(each.intermediate_values)) for each in study.trials]
    names = {TrialEnd.COMPLETE: "COMPLETE", TrialEnd.PRUNED: "PRUNED"}
    assert [(each.values, names[each.end], each.time) for each in ours.trials()] == expected
    assert ours.best().objectives[0] == study.best_value


def test_grid_tries_every_point_once(tmp_path):
    study = search(store_of(tmp_path), tuning_of(search={"algorithm": "grid"}, budget={}), GRID)
    tried = {(each.values["lr"], each.values["width"]) for each in study.trials()}
    assert tried == {(lr, width) for lr in (1e-3, 1e-2, 1e-1) for width in range(1, 6)}
    assert len(study.trials()) == 15
    assert study.why_over == "all 15 trials have been run"


@pytest.mark.parametrize(
    ("points", "number"), [([{"lr": 1e-2, "width": 3}], 15), ([{"lr": 1e-2, "width": 3}, {"width": 2}], 16)]
)
def test_grid_after_points_tries_every_point_of_its_own(tmp_path, points, number):
    tuning = tuning_of(search={"algorithm": "grid"}, budget={}, warmStart={"points": points})
    study = search(store_of(tmp_path), tuning, GRID)
    tried = [(each.values["lr"], each.values["width"]) for each in study.trials()]
    assert set(tried) == {(lr, width) for lr in (1e-3, 1e-2, 1e-1) for width in range(1, 6)}
    assert tried[0] == (1e-2, 3)
    assert len(tried) == number
    assert tried.count((1e-2, 3)) == 1 or len(points) == 2


def test_raised_budget_extends_a_search(tmp_path):
    longer = search(store_of(tmp_path / "a"), tuning_of(budget={"maxTrials": 12}), MIXED)
    search(store_of(tmp_path / "b"), tuning_of(budget={"maxTrials": 5}), MIXED)
    found = search(store_of(tmp_path / "b"), tuning_of(budget={"maxTrials": 12}), MIXED)
    assert seen(found) == seen(longer)


@pytest.mark.parametrize("algorithm", ["random", "tpe", "cmaes", "sobol", "nsga2"])
def test_constraints_are_never_suggested(tmp_path, algorithm):
    tuning = tuning_of(constraints=["width <= 3", "lr * width < 0.1"], search={"algorithm": algorithm})
    study = search(store_of(tmp_path), tuning, NUMBERS)
    assert [each.number for each in study.trials()] == list(range(16))
    assert all(each.values["width"] <= 3 and each.values["lr"] * each.values["width"] < 0.1 for each in study.trials())


def test_constraints_are_learnt_from(tmp_path):
    """What was rejected is bad: else TPE looks for the best where nothing is known, and needs chance to get out."""
    asked = {}
    for algorithm in ("tpe", "random"):
        tuning = tuning_of(constraints=["width <= 3", "lr * width < 0.1"], search={"algorithm": algorithm},
                           budget={"maxTrials": 30})  # fmt: skip
        search(store_of(tmp_path / algorithm), tuning, NUMBERS)
        lines = list(Journal(store_of(tmp_path / algorithm), 1).read_logs(0))
        asked[algorithm] = sum("rejected" in line.get("user_attr", {}) for line in lines)
    assert 0 < asked["tpe"] < asked["random"]


def test_constraints_that_leave_nothing(tmp_path):
    study = Study(tuning_of(constraints=["width > 9"]), NUMBERS, Journal(store_of(tmp_path), 1), LONGEST)
    with pytest.raises(ConfigurationError, match=r"rejected, 500 of them by `width > 9`; widen the space"):
        study.ask()


def test_points_come_first(tmp_path):
    tuning = tuning_of(warmStart={"points": [{"lr": 0.01, "width": 4}, {"width": 2}]})
    study = search(store_of(tmp_path), tuning, NUMBERS)
    first, second = study.trials()[:2]
    assert first.values == {"lr": 0.01, "width": 4}
    assert second.values["width"] == 2


def test_same_report_again_changes_nothing(tmp_path):
    store = store_of(tmp_path)
    study = Study(tuning_of(pruning={"algorithm": "asha"}), NUMBERS, Journal(store, 1), LONGEST)
    trial = study.ask()
    answer = study.report(trial.number, 1, {"val/loss": 1.0})
    again = Study(tuning_of(pruning={"algorithm": "asha"}), NUMBERS, Journal(store, 1), LONGEST)
    before = store.list("tuning")
    assert again.ask().is_resumed
    assert again.report(trial.number, 1, {"val/loss": 5.0}) is answer
    assert again.trials()[0].objectives == (1.0,)
    assert store.list("tuning") == before


def test_target_ends_a_search(tmp_path):
    study = search(store_of(tmp_path), tuning_of(objectives=[{"target": 0.6}], budget={"maxTrials": 200}), NUMBERS)
    assert study.why_over == "the target 0.6 was reached"
    assert [each.objectives[0] <= 0.6 for each in study.trials()].index(True) == len(study.trials()) - 1


def test_failed_trials_end_a_search(tmp_path):
    study = Study(tuning_of(budget={"maxFailedTrials": 2}), NUMBERS, Journal(store_of(tmp_path), 1), LONGEST)
    for _ in range(3):
        study.tell(study.ask().number, TrialEnd.FAILED, reason="UserCodeError: x")
    assert study.ask() is None
    assert study.failure == (
        "3 trials have failed, which is more than budget.maxFailedTrials = 2; trial 0: UserCodeError: x"
    )


@pytest.mark.parametrize("end", [TrialEnd.DIVERGED, TrialEnd.OUT_OF_MEMORY])
def test_divergence_and_memory_are_results(tmp_path, end):
    study = Study(
        tuning_of(budget={"maxFailedTrials": 0, "maxTrials": 2}), NUMBERS, Journal(store_of(tmp_path), 1), LONGEST
    )
    study.tell(study.ask().number, end, reason="NonFiniteLoss: x")
    trial = study.ask()
    study.report(trial.number, 1, {"val/loss": 3.0})
    study.tell(trial.number, TrialEnd.COMPLETE)
    assert study.best().number == 1
    assert [each.end for each in study.trials()] == [end, TrialEnd.COMPLETE]


def test_hours_count_over_attempts(tmp_path):
    store, now = store_of(tmp_path), [0.0]
    tuning = tuning_of(budget={"maxHours": 1})
    for attempt in range(2):
        study = Study(tuning, NUMBERS, Journal(store, 1), LONGEST, clock=lambda: now[0])
        trial = study.ask()
        now[0] += 2000
        assert study.is_over == (attempt == 1)
        study.report(trial.number, 1, {"val/loss": 3.0})
        study.tell(trial.number, TrialEnd.COMPLETE, seconds=2000)
    assert study.why_over == "budget.maxHours = 1 are used"


def test_gpu_hours(tmp_path):
    study = Study(tuning_of(budget={"maxGpuHours": 2}), NUMBERS, Journal(store_of(tmp_path), 1), LONGEST, gpus=4)
    study.tell(study.ask().number, TrialEnd.PRUNED, seconds=1799)
    assert not study.is_over
    study.tell(study.ask().number, TrialEnd.PRUNED, seconds=2)
    assert study.why_over == "budget.maxGpuHours = 2 are used"


@pytest.mark.parametrize(("reduce", "expected"), [("best", 1.0), ("last", 4.0), ("mean", 2.0)])
def test_value_of_a_trial(tmp_path, reduce, expected):
    study = Study(tuning_of(objectives=[{"reduce": reduce}]), NUMBERS, Journal(store_of(tmp_path), 1), LONGEST)
    number = study.ask().number
    for time, value in enumerate((1.0, 1.0, 2.0, 4.0), 1):
        study.report(number, time, {"val/loss": value})
    study.tell(number, TrialEnd.COMPLETE)
    assert study.best().objectives == (expected,)


def test_front_is_that_of_brute_force(tmp_path):
    tuning = tuning_of(objectives=[{"metric": "val/loss"}, {"metric": "val/accuracy"}], search={"algorithm": "nsga2"},
                       budget={"maxTrials": 40})  # fmt: skip
    study, points = Study(tuning, NUMBERS, Journal(store_of(tmp_path), 1), LONGEST), {}
    while (trial := study.ask()) is not None:
        point = (round(curve(trial.values, 1), 1), float(trial.values["width"]))
        points[trial.number] = point
        study.report(trial.number, 1, {"val/loss": point[0], "val/accuracy": point[1]})
        study.tell(trial.number, TrialEnd.COMPLETE)
    expected = [
        number for number, (loss, score) in points.items()
        if not any(a <= loss and b >= score and (a < loss or b > score) for a, b in points.values())
    ]  # fmt: skip
    assert [each.number for each in study.front()] == expected
    assert 1 < len(expected) < 40


def test_unknown_metric_is_said_with_those_that_exist(tmp_path):
    study = Study(tuning_of(objectives=[{"metric": "val/auc"}]), NUMBERS, Journal(store_of(tmp_path), 1), LONGEST)
    with pytest.raises(ConfigurationError, match=r"there is no metric val/auc; there are val/accuracy, val/loss"):
        study.report(study.ask().number, 1, {"val/loss": 1.0, "val/accuracy": 0.5, "train/loss": 2.0})
