"""Rules for a search: whether its space fits the job, and its parts fit each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainmaster_api.spec.default_space import BY_NAME
from trainmaster_api.spec.job import Spec
from trainmaster_api.spec.task import is_better_higher
from trainmaster_api.spec.training import OWN_PROGRAMS
from trainmaster_api.tuning.expression import ExpressionError, read
from trainmaster_api.tuning.plan import validations
from trainmaster_api.tuning.space import (
    CHANGEABLE,
    OWN_ARGUMENTS,
    Axis,
    NoPlaceError,
    axis,
    in_order,
    is_changeable,
    place_of,
)

from .check import Check, registering
from .problem import Problem

TUNING_CHECKS: list[Check] = []
_check = registering(TUNING_CHECKS, optional=True)
_TUNING = "spec.tuning"
_SPACE = f"{_TUNING}.space"
_FIXED = {
    "code": "it is the same in all trials",
    "framework": "it follows from the sections of the training",
    "task": "trials of different tasks can't be compared",
    "data.source": "trials on different data can't be compared",
    "data.split": "trials that are validated on different rows can't be compared",
    "loop.duration": "`pruning` decides how long a trial is",
    "loop.validateEvery": "trials are compared by their validations",
    "script.checkpoints": "it is the same in all trials",
    "script.stopSignal": "it is the same in all trials",
    "script.parametersAs": "it is the same in all trials",
    "lightning.trainer.max_epochs": "`pruning` decides how long a trial is",
    "lightning.trainer.max_steps": "`pruning` decides how long a trial is",
    "lightning.trainer.max_time": "`pruning` decides how long a trial is",
    "lightning.trainer.val_check_interval": "trials are compared by their validations",
    "lightning.trainer.check_val_every_n_epoch": "trials are compared by their validations",
    "transformers.arguments.num_train_epochs": "`pruning` decides how long a trial is",
    "transformers.arguments.max_steps": "`pruning` decides how long a trial is",
    "transformers.arguments.eval_strategy": "trials are compared by their validations",
    "transformers.arguments.eval_steps": "trials are compared by their validations",
}
"""Fields that can't be searched, and why."""
_IN_FOLDERS = ("script", "lightning")
_OWN_METRICS = ("script", "lightning")
"""What names its metrics itself, whatever ours of that name means."""
_CONTINUOUS = ("cmaes", "sobol")
_NO_CONDITIONS = ("grid", "cmaes", "sobol", "gp")
_SEVERAL = ("random", "grid", "tpe", "gp", "sobol", "nsga2")
_LEARN = ("tpe", "gp", "cmaes")
_TAUGHT = ("tpe", "gp")
_DRAWN = ("random", "sobol")


def _axes(spec: Spec) -> dict[str, Axis]:
    """Return the axes that have no problem of their own."""
    space = spec.tuning.space if spec.tuning is not None else {}
    found = {}
    for name in space:
        try:
            found[name] = axis(spec.training, name, space)
        except NoPlaceError:
            continue
    return found


@_check("spec.training")
def _tuning_place(spec: Spec) -> Iterator[Problem]:
    """A parameter must be a field of `spec.training` that can be searched, or an argument of your own code."""
    tuning = spec.tuning
    for name in tuning.space if tuning is not None else ():
        path = f"{_SPACE}.{name}"
        try:
            place = place_of(spec.training, name)
            fixed = next((each for each in _FIXED if place == each or place.startswith(f"{each}.")), None)
            if fixed is not None:
                yield Problem(path, f"can't be searched: {_FIXED[fixed]}")
                continue
            axis(spec.training, name, tuning.space if tuning is not None else {})
        except NoPlaceError as error:
            yield Problem(path, str(error))


@_check(_TUNING, "spec.training.code", *(f"spec.training.{each}" for each in _IN_FOLDERS))
def _tuning_code(spec: Spec) -> Iterator[Problem]:
    """A search of a `script` or with `lightning` needs `code`: each trial has a working directory with a copy of it."""
    training = spec.training
    if spec.tuning is not None and training.code is None and training.backend in _IN_FOLDERS:
        words = f"is required for a search with `{training.backend}`: each trial works in a copy of its own"
        yield Problem("spec.training.code", words)


@_check(_SPACE)
def _tuning_conditions(spec: Spec) -> Iterator[Problem]:
    """`when` must name other parameters and values that they can have, and not go round in a circle."""
    tuning = spec.tuning
    if tuning is None:
        return
    axes = _axes(spec)
    for name, parameter in tuning.space.items():
        for other, accepted in parameter.when.items():
            where = f"{_SPACE}.{name}.when.{other}"
            if other == name:
                yield Problem(where, "is the parameter itself")
            elif other not in tuning.space:
                yield Problem(where, f"is no parameter of this search; there are {', '.join(tuning.space)}")
            elif not accepted:
                yield Problem(where, "needs at least one value")
            elif other in axes:
                strange = [value for value in accepted if not axes[other].has(value)]
                if strange:
                    yield Problem(where, f"has {strange[0]!r}, which {other} never is")
    try:
        in_order(tuning.space)
    except NoPlaceError as error:
        yield Problem(_SPACE, str(error))


@_check(f"{_TUNING}.constraints", _SPACE)
def _tuning_constraints(spec: Spec) -> Iterator[Problem]:
    """`constraints` must be expressions over parameters."""
    tuning = spec.tuning
    for index, text in enumerate(tuning.constraints if tuning is not None else ()):
        path = f"{_TUNING}.constraints[{index}]"
        try:
            expression = read(text)
        except ExpressionError as error:
            yield Problem(path, str(error))
            continue
        unknown = sorted(expression.names - set(tuning.space if tuning is not None else ()))
        if unknown:
            known = ", ".join(tuning.space if tuning is not None else ())
            yield Problem(path, f"has {unknown[0]}, which is no parameter of this search; there are {known}")
        elif not expression.names:
            yield Problem(path, "has no parameter in it")


@_check(f"{_TUNING}.search", _SPACE)
def _tuning_algorithm(spec: Spec) -> Iterator[Problem]:
    """`search.algorithm` must fit the space."""
    tuning = spec.tuning
    if tuning is None:
        return
    path, name = f"{_TUNING}.search.algorithm", tuning.search.algorithm
    axes = _axes(spec)
    searched = {key: each for key, each in axes.items() if each.kind != "constant"}
    if len(axes) == len(tuning.space) and not searched:
        yield Problem(_SPACE, "has constants only: there is nothing to search")
    conditional = [key for key, each in axes.items() if each.when]
    if conditional and name in _NO_CONDITIONS:
        yield Problem(path, f"{name} has no conditions, but {conditional[0]} has `when`; use tpe or random")
    choices = [key for key, each in searched.items() if each.kind == "choice"]
    if choices and name in _CONTINUOUS:
        yield Problem(path, f"{name} searches numbers only, but {choices[0]} is a list of values; use tpe or random")
    if name == "cmaes" and len(searched) == 1:
        yield Problem(path, "cmaes needs at least two parameters; use tpe or random")
    endless = [key for key, each in axes.items() if each.count == float("inf")]
    if endless and name == "grid":
        yield Problem(f"{_SPACE}.{endless[0]}", "has no end of values: a grid needs `values`, or a `step`")
    startup, trials = tuning.search.startup_trials, tuning.budget.max_trials
    if startup is not None and name not in _LEARN:
        yield Problem(f"{_TUNING}.search.startupTrials", f"{name} has none: it doesn't learn from trials; remove it")
    elif startup is not None and trials is not None and startup >= trials:
        words = f"must be below budget.maxTrials = {trials}, or nothing is ever learnt"
        yield Problem(f"{_TUNING}.search.startupTrials", words)


@_check(f"{_TUNING}.objectives", f"{_TUNING}.search", f"{_TUNING}.pruning")
def _tuning_objectives(spec: Spec) -> Iterator[Problem]:
    """Several objectives need different metrics, an algorithm for several, no pruning and no targets."""
    tuning = spec.tuning
    if tuning is None:
        return
    seen: set[str] = set()
    for index, objective in enumerate(tuning.objectives):
        if objective.metric in seen:
            yield Problem(f"{_TUNING}.objectives[{index}].metric", "is an objective already")
        seen.add(objective.metric)
        is_own = spec.training.backend in _OWN_METRICS
        known = None if is_own else is_better_higher(objective.metric)
        if objective.goal is None and is_own:
            words = f"is required: what {objective.metric} is, only your program knows; minimize or maximize"
            yield Problem(f"{_TUNING}.objectives[{index}].goal", words)
        elif objective.goal is None and known is None and spec.training.recipe is not None:
            yield Problem(f"{_TUNING}.objectives[{index}].goal", "is required: the metric is not one that we ship")
        if objective.goal is not None and known is not None and (objective.goal == "maximize") != known:
            right = "higher" if known else "lower"
            words = f"is the wrong way: {objective.metric} is better when it is {right}; remove it"
            yield Problem(f"{_TUNING}.objectives[{index}].goal", words)
    if len(tuning.objectives) == 1:
        return
    if tuning.pruning.algorithm != "none":
        words = f"must be none with {len(tuning.objectives)} objectives: no trial is better than another in all of them"
        yield Problem(f"{_TUNING}.pruning.algorithm", words)
    if tuning.search.algorithm not in _SEVERAL:
        words = f"has one objective; with {len(tuning.objectives)} use one of {', '.join(_SEVERAL)}"
        yield Problem(f"{_TUNING}.search.algorithm", words)
    for index, objective in enumerate(tuning.objectives):
        if objective.target is not None:
            yield Problem(f"{_TUNING}.objectives[{index}].target", "is for one objective; remove it")


@_check(f"{_TUNING}.pruning", f"{_TUNING}.budget", *(f"spec.training.{each}" for each in OWN_PROGRAMS))
def _tuning_pruning(spec: Spec) -> Iterator[Problem]:
    """`pruning` must leave room between its first and last decision; `hyperband` must know the length of a trial."""
    tuning = spec.tuning
    if tuning is None:
        return
    pruning, path = tuning.pruning, f"{_TUNING}.pruning"
    if pruning.max_time is not None and pruning.min_time >= pruning.max_time:
        yield Problem(f"{path}.minTime", f"must be below maxTime = {pruning.max_time}")
    if pruning.algorithm == "hyperband" and pruning.max_time is None and spec.training.backend in OWN_PROGRAMS:
        words = f"is required for hyperband with `{spec.training.backend}`: how many validations a whole trial has"
        yield Problem(f"{path}.maxTime", words)


@_check(_TUNING, "spec.training")
def _tuning_population(spec: Spec) -> Iterator[Problem]:
    """`pruning.algorithm: pbt` needs a population, values that may change in training, and results at the end."""
    tuning = spec.tuning
    if tuning is None or tuning.pruning.algorithm != "pbt":
        return
    if spec.training.backend != "torch":
        words = "pbt needs a training with `model` or `recipe`, whose weights it can load into another trial"
        yield Problem(f"{_TUNING}.pruning.algorithm", words)
        return
    every, longest = tuning.pruning.perturb_every, validations(spec)
    if longest is not None and every >= longest:
        words = f"must be below the {longest} validations of a trial: it would end before its first round does"
        yield Problem(f"{_TUNING}.pruning.perturbEvery", words)
    if (tuning.budget.max_trials or 0) < 2:
        words = "is required with pbt, and at least 2: it is the size of the population"
        yield Problem(f"{_TUNING}.budget.maxTrials", words)
    if tuning.search.algorithm not in _DRAWN:
        words = "learns from trials that have ended, but with pbt all begin first; use random or sobol"
        yield Problem(f"{_TUNING}.search.algorithm", words)
    if tuning.objectives[0].reduce != "last":
        words = "must be last with pbt: a trial's weights are those of its end, and not of its best validation"
        yield Problem(f"{_TUNING}.objectives[0].reduce", words)
    for name, each in _axes(spec).items():
        if each.when:
            yield Problem(f"{_SPACE}.{name}.when", "is not possible with pbt: values change while a trial is trained")
        if each.kind != "constant" and not is_changeable(spec.training, each.path):
            yield Problem(
                f"{_SPACE}.{name}",
                "can't change while a trial is trained, as with pbt: a trial continues from another one's weights, "
                f"optimizer state and position in the data; there, {', '.join(CHANGEABLE)} and arguments of your own "
                "code can be searched",
            )


@_check(f"{_TUNING}.budget", f"{_TUNING}.trial", "spec.cluster.workers")
def _tuning_budget(spec: Spec) -> Iterator[Problem]:
    """`budget` and `trial` must fit the job's workers."""
    tuning, workers = spec.tuning, spec.cluster.workers
    if tuning is None:
        return
    budget, path = tuning.budget, f"{_TUNING}.budget"
    per_trial = tuning.trial.workers
    if per_trial > workers.count:
        words = f"must be at most cluster.workers.count = {workers.count}: trials share the job's workers"
        yield Problem(f"{_TUNING}.trial.workers", words)
    elif budget.max_parallel is not None and budget.max_parallel * per_trial > workers.count:
        fits = workers.count // per_trial
        words = f"at most {fits}: cluster.workers.count = {workers.count}, and a trial has {per_trial}"
        yield Problem(f"{path}.maxParallel", words)
    if budget.max_parallel is not None and budget.max_trials is not None and budget.max_parallel > budget.max_trials:
        yield Problem(f"{path}.maxParallel", f"must be at most maxTrials = {budget.max_trials}")
    if budget.max_gpu_hours is not None and not workers.gpus:
        yield Problem(f"{path}.maxGpuHours", "needs GPUs: cluster.workers.gpus is 0; use maxHours")


@_check(f"{_TUNING}.warmStart", _SPACE)
def _tuning_points(spec: Spec) -> Iterator[Problem]:
    """`warmStart.points` must be values of parameters."""
    tuning = spec.tuning
    if tuning is None:
        return
    axes = _axes(spec)
    for index, point in enumerate(tuning.warm_start.points):
        for name, value in point.items():
            path = f"{_TUNING}.warmStart.points[{index}].{name}"
            if name not in tuning.space:
                yield Problem(path, f"is no parameter of this search; there are {', '.join(tuning.space)}")
            elif name in axes and not axes[name].has(value):
                yield Problem(path, f"isn't in its range or list: {_shown(axes[name])}")


@_check(f"{_TUNING}.warmStart", f"{_TUNING}.search", "spec.tracking")
def _tuning_earlier(spec: Spec) -> Iterator[Problem]:
    """`warmStart.from` needs an algorithm that learns from it, and `tracking` where it names an experiment."""
    tuning = spec.tuning
    if tuning is None:
        return
    path, earlier = f"{_TUNING}.warmStart.from", tuning.warm_start.earlier
    if earlier and tuning.search.algorithm not in _TAUGHT:
        words = (
            f"has no effect with search.algorithm {tuning.search.algorithm}, which doesn't learn from trials of "
            f"others; use {' or '.join(_TAUGHT)}, or remove it"
        )
        yield Problem(path, words)
    if not any(each.mlflow is not None for each in spec.tracking):
        for index, each in enumerate(earlier):
            if each.mlflow_experiment is not None:
                words = "needs mlflow under spec.tracking, which says where the server is: add `- mlflow: {}`"
                yield Problem(f"{path}[{index}].mlflowExperiment", words)


@_check("spec.hyperparameterSearch", "spec.training")
def _search_space(spec: Spec) -> Iterator[Problem]:
    """`hyperparameterSearch` needs a `space` where none follows from the job, as with most programs of your own."""
    if spec.hyperparameter_search is None or spec.tuning is not None:
        return
    section = next(each for each in OWN_ARGUMENTS if each == "model" or getattr(spec.training, each) is not None)
    words = (
        f"is required: {OWN_ARGUMENTS[section]} has no number named {', '.join(BY_NAME)}, from which a default would "
        "follow; say what is searched, such as `lr: {min: 0.0001, max: 0.1, scale: log}`"
    )
    yield Problem("spec.hyperparameterSearch.space", words)


def _shown(each: Axis) -> Any:
    return f"{each.low:g} to {each.high:g}" if each.kind in ("int", "float") else list(each.values)
