"""Parameters as Optuna knows them: a choice among lists or objects is one among their JSON texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, create_trial
from trainmaster_api.tuning.space import Axis


def suggest(trial: Trial, axes: Sequence[Axis]) -> dict[str, Any]:
    """Return the values of a trial; axes come after those they depend on."""
    values: dict[str, Any] = {}
    for axis in axes:
        if axis.exists(values):
            values[axis.name] = _suggest_one(trial, axis)
    return values


def _suggest_one(trial: Trial, axis: Axis) -> Any:
    if axis.kind == "constant":
        return axis.values[0]
    if axis.kind == "choice":
        return found(axis, trial.suggest_categorical(axis.name, [text(each) for each in axis.values]))
    if axis.kind == "int":
        return trial.suggest_int(axis.name, int(axis.low), int(axis.high), step=int(axis.step or 1), log=axis.is_log)
    return trial.suggest_float(axis.name, axis.low, axis.high, step=axis.step, log=axis.is_log)


def finished(
    axes: Sequence[Axis],
    values: Mapping[str, Any],
    results: Sequence[float],
    attributes: Mapping[str, Any] | None = None,
) -> FrozenTrial:
    """Return a trial that is complete, for a study that hasn't suggested it.

    Args:
        axes: Parameters of the study.
        values: Of those that the trial has.
        results: Value of each objective.
        attributes: User attributes.
    """
    params = plain(axes, values)
    return create_trial(
        params=params,
        distributions={axis.name: _distribution(axis) for axis in axes if axis.name in params},
        values=list(results),
        user_attrs=dict(attributes or {}),
    )


def _distribution(axis: Axis) -> BaseDistribution:
    """Return what `suggest` draws an axis from."""
    if axis.kind == "choice":
        return CategoricalDistribution([text(each) for each in axis.values])
    if axis.kind == "int":
        return IntDistribution(int(axis.low), int(axis.high), step=int(axis.step or 1), log=axis.is_log)
    return FloatDistribution(axis.low, axis.high, step=axis.step, log=axis.is_log)


def plain(axes: Sequence[Axis], point: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as Optuna has them; it doesn't know constants."""
    by_name = {axis.name: axis for axis in axes}
    return {
        name: text(value) if by_name[name].kind == "choice" else value
        for name, value in point.items()
        if by_name[name].kind != "constant"
    }


def text(value: Any) -> Any:
    """Return a value that Optuna takes as a choice."""
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


def found(axis: Axis, given: Any) -> Any:
    """Return the value of an axis that Optuna has as `given`. Raises StopIteration: there is none."""
    return next(
        each for each in axis.values
        if text(each) == given and isinstance(given, bool) == isinstance(text(each), bool)
    )  # fmt: skip
