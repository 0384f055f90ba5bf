"""`spec.tuning`: a search for good hyperparameters. The rest of the spec is the template of its trials.

Removing `tuning` gives the plain run. Values reach a trial by their path in `spec.training`, so no text is substituted.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from trainmaster_api.address import Uri
from trainmaster_api.spec.parameter import Parameter, ParameterName
from trainmaster_api.spec.task import is_better_higher
from trainmaster_api.types import Metric, Model

MOST_TRIALS = 10_000
MOST_HOURS = 100_000
MOST_PARAMETERS = 64


class Objective(Model):
    """What is optimized."""

    metric: Metric = "val/loss"
    """Validation metric."""
    goal: Literal["minimize", "maximize"] | None = None
    """Default: as the metric has it. A program of your own must say it."""
    target: float | None = None
    """The search ends once a trial has reached this value."""
    reduce: Literal["best", "last", "mean"] = "best"
    """Which of a trial's values counts: the best, the last, or the mean of all."""

    @property
    def is_higher_better(self) -> bool | None:
        """Whether higher is better; None: neither `goal` nor the metric's name tells."""
        return self.goal == "maximize" if self.goal is not None else is_better_higher(self.metric)


class Search(Model):
    """How the next trial is chosen."""

    algorithm: Literal["random", "grid", "tpe", "gp", "cmaes", "sobol", "nsga2"] = "tpe"
    """`tpe` suits most searches; `gp` few and expensive trials; `cmaes` many trials of numbers alone; `nsga2` several
    objectives; `grid`, `random` and `sobol` don't learn from trials."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of the search. What a trial is given depends on it and on the results before."""
    startup_trials: Annotated[int, Field(ge=0, le=MOST_TRIALS)] | None = None
    """Trials at random before `tpe`, `gp` and `cmaes` learn. Default: the algorithm's own."""


class Pruning(Model):
    """How trials that will not win are stopped, or taught by better ones."""

    algorithm: Literal["none", "asha", "hyperband", "median", "pbt"] = "none"
    """`asha` stops a trial at a rung unless it is among the best there; `hyperband` does so in brackets of different
    patience; `median` stops what is worse than the median at the same time. `pbt` (population-based training) stops
    none: in rounds, the worst trials continue from the checkpoints of the best, with changed values."""
    min_time: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Validations before the first decision."""
    max_time: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """Validations of a whole trial. Default: as many as the template's duration has; of a program of your own as many
    as it makes."""
    reduction_factor: Annotated[int, Field(ge=2, le=16)] = 3
    """For `asha` and `hyperband`: one in so many is promoted from each rung to the next."""
    perturb_every: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """For `pbt`: validations of a round."""
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """For `pbt`: share of the population that is replaced after each round, each by one of as many of the best."""
    perturb_factors: Annotated[list[Annotated[float, Field(gt=0, le=100)]], Field(min_length=1, max_length=16)] = [
        0.8,
        1.2,
    ]
    """For `pbt`: a number is multiplied by one of these; of a list, a neighbouring value is taken."""
    resample_probability: Annotated[float, Field(ge=0, le=1)] = 0.25
    """For `pbt`: how often a value is drawn from its whole range instead."""


class Budget(Model):
    """When the search ends."""

    max_trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = None
    """Trials at most. May be raised later, which extends the search. Default: with `grid`, all of the grid; else 64.
    With `pbt` it is the size of the population, which stays as it is."""
    max_parallel: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Trials at the same time. Default: as many as fit the job's workers. With more than one, what is suggested depends
    on which of them is quicker."""
    max_failed_trials: Annotated[int, Field(ge=0, le=MOST_TRIALS)] = 8
    """The search fails when more trials than this have failed."""
    max_hours: Annotated[float, Field(gt=0, le=MOST_HOURS)] | None = None
    """Hours of the search over all its attempts; then it ends with the best so far."""
    max_gpu_hours: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    """GPU-hours of all trials; then it ends with the best so far."""


class TrialSettings(Model):
    """What is different in a trial from the job itself."""

    workers: Annotated[int, Field(ge=1, le=1000)] = 1
    """Workers of a trial. The job's workers are shared out among the trials."""
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often a trial continues from its checkpoint after its processes were lost. A trial that diverges or needs
    more memory than there is isn't tried again: that is its result."""


class EarlierTrials(Model):
    """Where finished trials come from: another search, or an experiment."""

    EXACTLY_ONE: ClassVar[tuple[str, ...]] = ("run", "mlflowExperiment")

    run: Annotated[Uri, Field(examples=["s3://bucket/prefix/default/digits/0f3c9a1b2d4e"])] | None = None
    """Address of the directory of a run with a search for the same objectives."""
    mlflow_experiment: Annotated[str, Field(min_length=1, max_length=250)] | None = None
    """Name of an experiment on the MLflow server of `spec.tracking`; its finished runs count."""
    top_k: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = None
    """So many of its best. Default: all."""

    @property
    def experiment(self) -> tuple[str, str] | None:
        """Kind of tracker and name of the experiment there; None: it is a run."""
        return None if self.mlflow_experiment is None else ("mlflow", self.mlflow_experiment)


class WarmStart(Model):
    """What is known before the first trial."""

    earlier: Annotated[list[EarlierTrials], Field(alias="from", max_length=8)] = []
    """Finished trials of other searches, from which `tpe` and `gp` learn. They are read once, as the search begins;
    those whose parameters aren't in the space are left out."""
    points: Annotated[list[dict[str, Any]], Field(max_length=100)] = []
    """Parameters that are tried first; those that aren't named are searched."""


class FinalRun(Model):
    """The winner, trained as the job itself after the search."""

    enabled: bool = True
    """Whether the winner is trained with the job's duration and workers, evaluated and packaged. With `pbt` it isn't
    trained again, as no single set of values would give it: it continues from its own weights to the job's duration."""


CHANGEABLE = ("budget", "keepBest")
"""Fields of a search that may be changed once it has begun: its trials stay what they are."""


class Tuning(Model):
    """A search for hyperparameters: its trials are this job with other values."""

    objectives: Annotated[list[Objective], Field(min_length=1, max_length=4)] = [Objective()]
    """What is optimized. Several give a Pareto front instead of one best trial."""
    space: Annotated[dict[ParameterName, Parameter], Field(min_length=1, max_length=MOST_PARAMETERS)]
    """What is searched. A name is the path of a field of `spec.training`, such as `optimizer.lr` or `model.args.depth`;
    any other name is an argument of your own code. With `script` and `lightning` only that section has paths."""
    constraints: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=512)]],
        Field(max_length=32, examples=[["data.batchSize * model.args.depth <= 256"]]),
    ] = []
    """Expressions over the parameters that must hold: comparisons and arithmetic, joined by `&&`, `||` and `!`. A
    suggestion that violates one is never started."""
    search: Search = Search()
    """How the next trial is chosen."""
    pruning: Pruning = Pruning()
    """How trials that will not win are stopped."""
    budget: Budget = Budget()
    """When the search ends."""
    trial: TrialSettings = TrialSettings()
    """What is different in a trial."""
    warm_start: WarmStart = WarmStart()
    """What is known before the first trial."""
    keep_best: Annotated[int, Field(ge=0, le=MOST_TRIALS)] = 3
    """Trials whose checkpoints are kept after their end: so many of the best, or the front of several objectives. Of
    the others everything else is kept, such as their metrics. May be changed later."""
    final_run: FinalRun = FinalRun()
    """The winner, trained as the job itself."""
