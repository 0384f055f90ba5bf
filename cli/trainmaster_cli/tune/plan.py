"""The page of `trainmaster tune plan`. Pure."""

from __future__ import annotations

import json
import math
from typing import Any

from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.tuning import MOST_TRIALS, Budget, Objective, Tuning
from trainmaster_api.tuning.plan import MOST_COUNTED, Plan, Rung, is_population, plan_of, replaced_in
from trainmaster_api.tuning.space import Axis

from trainmaster_cli.columns import aligned

_UNITS = {"ep": "epochs", "step": "steps"}
_SHOWN = 60
_REDUCED = {"best": "the best validation", "last": "the last validation", "mean": "the mean of the validations"}


def plan_lines(job: TrainingJob) -> list[str]:
    """Return what the search of a valid job will do, as lines.

    Raises:
        ExpressionError: A constraint can't be computed.
    """
    plan, tuning = plan_of(job.spec), job.spec.tuning
    assert tuning is not None
    rows = [
        *_named("written as", _shorthand(job)),
        *_named("objective", [_objective(each) for each in tuning.objectives]),
        *_named("constraint", list(tuning.constraints)),
        ("points", _points(plan, tuning)),
        ("trials", _trials(plan, job)),
        ("in parallel", _parallel(plan, job)),
        ("a trial", _trial(plan, job)),
        *_named("pruning", _pruning(plan, tuning)),
        ("cost", _cost(plan, tuning)),
        ("budget", _budget(tuning.budget)),
        ("final run", _final(plan, job)),
    ]
    many = "s" * (len(plan.axes) > 1)
    head = f"{job.metadata.name}: {tuning.search.algorithm} over {len(plan.axes)} parameter{many}, seed "
    lines = [f"{head}{tuning.search.seed}", "", *_space(plan), "", *(f"  {line}" for line in aligned(rows))]
    return [*lines, *(["", *_rungs(plan)] if any(each.rungs for each in plan.brackets) else ())]


def _shorthand(job: TrainingJob) -> list[str]:
    """Return what the user has written, if it is short for the search; the rest of the page is what that means."""
    short = job.spec.hyperparameter_search
    if short is None:
        return []
    default = "; the space is the default one, `space` sets another" if short.space is None else ""
    return [f"hyperparameterSearch: {short.method}, budget {short.budget}{default}"]


def _named(name: str, values: list[str]) -> list[tuple[str, str]]:
    return [(name if index == 0 else "", value) for index, value in enumerate(values)]


def _space(plan: Plan) -> list[str]:
    header = ("PARAMETER", "KIND", "VALUES", "SCALE", "WHEN")
    return [f"  {line}" for line in aligned([header, *(_axis(each) for each in plan.axes)])]


def _axis(axis: Axis) -> tuple[str, ...]:
    when = "; ".join(f"{name} is {' or '.join(map(_text, values))}" for name, values in axis.when.items())
    if axis.kind in ("choice", "constant"):
        listed = ", ".join(map(_text, axis.values))
        shown = listed if len(listed) <= _SHOWN else f"{listed[: _SHOWN - 1]}… ({len(axis.values)} values)"
        return axis.name, axis.kind, shown, "-", when or "always"
    step = f" in steps of {axis.step:g}" if axis.step is not None else ""
    return axis.name, axis.kind, f"{axis.low:g} to {axis.high:g}{step}", "log" if axis.is_log else "linear", (
        when or "always"
    )  # fmt: skip


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _objective(objective: Objective) -> str:
    goal = {True: "maximize", False: "minimize", None: "in the metric's direction"}[objective.is_higher_better]
    target = f"; the search ends at {objective.target:g}" if objective.target is not None else ""
    return f"{objective.metric}, {goal}; {_REDUCED[objective.reduce]} of a trial counts{target}"


def _points(plan: Plan, tuning: Tuning) -> str:
    if math.isinf(plan.combinations):
        endless = next(each.name for each in plan.axes if math.isinf(each.count))
        return f"no end of them: {endless} is any number of its range"
    if plan.points is None:
        return f"at most {plan.combinations:,.0f}; more than {MOST_COUNTED:,} are not counted one by one"
    left = f", of {plan.combinations:,.0f} combinations" if plan.points != plan.combinations else ""
    grid = "; the grid tries each once" if tuning.search.algorithm == "grid" and plan.trials == plan.points else ""
    return f"{plan.points:,}{left}{grid}"


def _trials(plan: Plan, job: TrainingJob) -> str:
    tuning, short = job.spec.tuning, job.spec.hyperparameter_search
    assert tuning is not None
    if _has_only_hours(tuning):
        return f"as many as end within its hours, at most {plan.trials:,}"
    given, first = tuning.budget.max_trials, len(tuning.warm_start.points)
    is_grid = tuning.search.algorithm == "grid"
    own = "budget.maxTrials" if short is None else "its budget"
    why = own if given == plan.trials else "all of the grid" if is_grid else "the default"
    warm = f"; the first {min(first, plan.trials)} are those of warmStart" if first > 1 else ""
    warm = "; the first is that of warmStart" if first == 1 else warm
    return f"{plan.trials}, {why}{warm}"


def _has_only_hours(tuning: Tuning) -> bool:
    """Return whether it is a time that ends a search, and no number of trials that it can reach."""
    return tuning.budget.max_hours is not None and tuning.budget.max_trials == MOST_TRIALS


def _parallel(plan: Plan, job: TrainingJob) -> str:
    tuning = job.spec.tuning
    assert tuning is not None
    workers, own = job.spec.cluster.workers.count, tuning.trial.workers
    fits = f"{plan.fits} fit{'s' * (plan.fits == 1)}: cluster.workers.count is {workers}, and a trial has {own}"
    if plan.parallel == plan.fits:
        return f"{plan.parallel}; {fits}"
    most = "budget.maxParallel" if tuning.budget.max_parallel == plan.parallel else "there are no more trials"
    return f"{plan.parallel}, {most}; {fits}"


def _trial(plan: Plan, job: TrainingJob) -> str:
    loop = job.spec.training.loop
    if plan.longest is None:
        return (
            f"{loop.duration}, validated each {loop.validate_every}: how many validations that is follows from the "
            "data; pruning.maxTime sets it"
        )
    length = f" in {plan.trial_length} {_UNITS[plan.unit]}" if plan.trial_length is not None else ""
    return f"at most {plan.longest} validation{'s' * (plan.longest > 1)}{length}"


def _pruning(plan: Plan, tuning: Tuning) -> list[str]:
    pruning = tuning.pruning
    if pruning.algorithm == "none":
        why = ": with several objectives no trial is the worse one" if len(tuning.objectives) > 1 else ""
        return [f"none: every trial has all its validations{why}"]
    if pruning.algorithm == "median":
        return [
            f"median, from validation {pruning.min_time} on: a trial ends that is worse than the median of the others"
        ]
    if is_population(tuning):
        replaced = replaced_in(pruning, plan.trials)
        return [
            f"pbt: of the {plan.trials} trials, the worst {replaced} continue from the checkpoints of the best "
            f"{replaced}, with changed values, after every {pruning.perturb_every} validation"
            f"{'s' * (pruning.perturb_every > 1)}"
        ]
    said = [f"{pruning.algorithm}: one in {pruning.reduction_factor} is promoted from each rung to the next"]
    if plan.longest is None:
        said.append("where the rungs end, and how many trials are left there, follows from the data")
    elif not any(each.rungs for each in plan.brackets):
        said.append(
            f"never decides: minTime is {pruning.min_time}, and a trial has {plan.longest} validations; lower minTime"
        )
    return said


def _cost(plan: Plan, tuning: Tuning) -> str:
    if _has_only_hours(tuning):
        return "what runs within its hours"
    whole = f"{plan.trials} whole trials{_amount(plan, plan.trials)}"
    if tuning.pruning.algorithm in ("none", "pbt"):
        return f"at most {whole}"
    if plan.work is None:
        return f"less than {whole}: what {tuning.pruning.algorithm} saves can't be told before"
    share = f"{100 * plan.work / plan.trials:.0f} %"
    return f"about {plan.work:.1f} whole trials{_amount(plan, plan.work)}, {share} of {whole} without pruning"


def _amount(plan: Plan, trials: float) -> str:
    return f" ({trials * plan.trial_length:,.0f} {_UNITS[plan.unit]})" if plan.trial_length is not None else ""


def _budget(budget: Budget) -> str:
    limits = [
        f"{budget.max_hours:g} h" if budget.max_hours is not None else "",
        f"{budget.max_gpu_hours:g} GPU-hours" if budget.max_gpu_hours is not None else "",
    ]
    times = " or ".join(each for each in limits if each)
    ends = f"ends after {times} with the best so far" if times else "no limit of time"
    return f"{ends}; fails with more than {budget.max_failed_trials} failed trials"


def _final(plan: Plan, job: TrainingJob) -> str:
    tuning = job.spec.tuning
    assert tuning is not None
    if plan.has_final_run and is_population(tuning):
        return "the winner continues from its own weights to the job's duration, then its test and its model"
    if plan.has_final_run:
        workers = job.spec.cluster.workers.count
        return (
            f"the winner for {job.spec.training.loop.duration} with {workers} worker{'s' * (workers > 1)}, then its "
            "test and its model; not in the cost above"
        )
    if len(tuning.objectives) > 1:
        return "none: several objectives have a front and no winner"
    return "none: finalRun.enabled is false"


def _rungs(plan: Plan) -> list[str]:
    several = len(plan.brackets) > 1
    header: tuple[str, ...] = ("VALIDATION", "TRIALS", "PROMOTED")
    rows = [
        (*([str(number)] if several else []), *_rung(plan, rung))
        for number, bracket in enumerate(plan.brackets)
        for rung in bracket.rungs
    ]
    lines = [f"  {line}" for line in aligned([("BRACKET", *header) if several else header, *rows])]
    hint = "  expected numbers, as if chance decided; more are promoted where early validations tell the winner"
    return [*lines, hint]


def _rung(plan: Plan, rung: Rung) -> tuple[str, ...]:
    end = " complete" if rung.time == plan.longest else ""
    return str(rung.time), _number(rung.reached), f"{_number(rung.promoted)}{end}"


def _number(expected: float) -> str:
    return f"{expected:.0f}" if expected == round(expected) else f"about {expected:.1f}"
