"""Optuna's samplers and pruners, by the names of the spec."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from optuna import pruners, samplers
from optuna.exceptions import ExperimentalWarning
from trainmaster_api.spec.tuning import Pruning, Search

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


def sampler(search: Search, number: int, *, is_random: bool = False) -> BaseSampler:
    """Return the sampler of one suggestion.

    Its draws follow from the seed and the number, and from nothing that was drawn before: so a suggestion is the same
    after a restart.

    Args:
        search: What is asked for.
        number: How many suggestions there were before.
        is_random: At random, whatever is asked for.
    """
    seed = int(np.random.SeedSequence([search.seed, number]).generate_state(1)[0])
    if is_random:
        return samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if search.algorithm == "tpe":
            startup = _or(search.startup_trials, 10)
            return samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=startup)
        if search.algorithm == "gp":
            return samplers.GPSampler(
                seed=seed, deterministic_objective=False, n_startup_trials=_or(search.startup_trials, 10)
            )
        if search.algorithm == "cmaes":
            return samplers.CmaEsSampler(
                seed=seed, warn_independent_sampling=False, n_startup_trials=_or(search.startup_trials, 1)
            )
        if search.algorithm == "sobol":  # a sequence: its scrambling is the search's, and it counts for itself
            return samplers.QMCSampler(
                qmc_type="sobol", scramble=True, seed=search.seed, warn_independent_sampling=False,
                independent_sampler=samplers.RandomSampler(seed=seed),
            )  # fmt: skip
        if search.algorithm == "nsga2":
            return samplers.NSGAIISampler(seed=seed)
        return samplers.RandomSampler(seed=seed)  # a grid's values are enqueued


def _or(given: int | None, default: int) -> int:
    return default if given is None else given


def pruner(pruning: Pruning, max_time: int) -> BasePruner:
    """Return the pruner of a search.

    Args:
        pruning: What is asked for.
        max_time: Validations of a whole trial.
    """
    if pruning.algorithm == "asha":
        return pruners.SuccessiveHalvingPruner(
            min_resource=pruning.min_time, reduction_factor=pruning.reduction_factor, min_early_stopping_rate=0
        )
    if pruning.algorithm == "hyperband":
        return pruners.HyperbandPruner(
            min_resource=pruning.min_time, max_resource=max_time, reduction_factor=pruning.reduction_factor
        )
    if pruning.algorithm == "median":
        return pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=pruning.min_time)
    return pruners.NopPruner()
