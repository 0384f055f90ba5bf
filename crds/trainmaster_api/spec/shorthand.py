"""`spec.hyperparameterSearch`: a search in two lines. It is short for a `spec.tuning`, which `expanded` returns.

Nothing else knows of it: `Spec.tuning` is the search of a job, whichever way it is written.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from trainmaster_api.types import Metric, Model, parse_count, rule_error

from .default_space import default_space
from .parameter import Parameter, ParameterName
from .training import Training
from .tuning import (
    MOST_HOURS,
    MOST_PARAMETERS,
    MOST_TRIALS,
    Budget,
    Objective,
    Search,
    Tuning,
)

BUDGET_PATTERN = r"^[1-9][0-9]{0,8}(m|h)?$"
ALGORITHMS: dict[str, Literal["random", "grid", "tpe"]] = {"grid": "grid", "random": "random", "bayesian": "tpe"}
"""Method -> `search.algorithm`."""
GRID_POINTS = 3
"""Of a range in a grid: its ends and its middle, which is the job's own value in a default space. Each further point
multiplies the number of trials."""


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _limits(budget: str) -> tuple[int | None, float | None]:
    count, unit = parse_count(budget)
    return (count, None) if not unit else (None, count / 60 if unit == "m" else float(count))


def _within_limits(budget: str) -> str:
    trials, hours = _limits(budget)
    if trials is not None and trials > MOST_TRIALS:
        raise rule_error(f"must be at most {MOST_TRIALS} trials")
    if hours is not None and hours > MOST_HOURS:
        raise rule_error(f"must be at most {MOST_HOURS}h")
    return budget


SearchBudget = Annotated[
    str,
    Field(
        pattern=BUDGET_PATTERN,
        max_length=16,
        examples=["50", "2h", "90m"],
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "x-noun": "a number of trials or a time",
            "minimum": 1,
            "maximum": MOST_TRIALS,
        },
    ),
    BeforeValidator(_number_as_text),
    AfterValidator(_within_limits),
]


class HyperparameterSearch(Model):
    """A search for hyperparameters by a method and a budget; `tuning` has all there is to set."""

    method: Literal["grid", "random", "bayesian"]
    """`bayesian` learns from the trials before (`tuning` calls it tpe); `random` draws; `grid` tries all combinations
    of the values, of a range without a step its ends and its middle."""
    budget: SearchBudget
    """When the search ends: a number of trials, such as 50, or a time, such as 2h or 90m. May be raised later, which
    extends the search."""
    space: Annotated[dict[ParameterName, Parameter], Field(min_length=1, max_length=MOST_PARAMETERS)] | None = None
    """What is searched, as `tuning.space` has it. Default: what follows from the job, see docs/tuning.md."""
    metric: Metric = "val/loss"
    """Validation metric that is optimized."""
    goal: Literal["minimize", "maximize"] | None = None
    """Default: as the metric has it. A program of your own must say it."""

    @property
    def limits(self) -> tuple[int | None, float | None]:
        """Number of trials and hours after which the search ends, of which one is None."""
        return _limits(self.budget)


def budget_text(hours: float) -> str:
    """Return a time as `budget` has it: `2h`, `90m`; less than a minute is a minute."""
    minutes = max(1, math.ceil(round(hours * 60, 6)))
    return f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"


def expanded(search: HyperparameterSearch, training: Training, workers: int) -> Tuning | None:
    """Return the search that a shorthand stands for; None: it says no space, and none follows from the job.

    Args:
        search: The shorthand.
        training: What is trained.
        workers: Of the job.
    """
    space = search.space or default_space(training, workers)
    if not space:
        return None
    trials, hours = search.limits
    if search.method == "grid":
        space = {name: grid_points(each) for name, each in space.items()}
    elif trials is None:
        trials = MOST_TRIALS  # the hours end it
    return Tuning(
        objectives=[Objective(metric=search.metric, goal=search.goal)],
        space=space,
        search=Search(algorithm=ALGORITHMS[search.method], seed=training.loop.seed),
        budget=Budget(max_trials=trials, max_hours=hours),
    )


def grid_points(parameter: Parameter) -> Parameter:
    """Return a parameter with GRID_POINTS values in place of a range without a step; whole ones if its ends are."""
    low, high = parameter.min, parameter.max
    if low is None or high is None or parameter.step is not None:
        return parameter
    shares = [index / (GRID_POINTS - 1) for index in range(GRID_POINTS)]
    if parameter.scale == "log":
        found = [math.exp(math.log(low) * (1 - share) + math.log(high) * share) for share in shares]
    else:
        found = [low * (1 - share) + high * share for share in shares]
    middle: list[float] = [float(f"{each:.6g}") for each in found[1:-1]]
    values: list[Any]
    if parameter.type != "float" and float(low).is_integer() and float(high).is_integer():
        values = list(dict.fromkeys(round(each) for each in (low, *middle, high)))
    else:
        values = list(dict.fromkeys(float(each) for each in (low, *middle, high)))
    return Parameter(values=values, when=parameter.when)
