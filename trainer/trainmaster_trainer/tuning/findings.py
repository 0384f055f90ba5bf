"""What a search has found, as pictures show it: values, ends, and which parameters matter."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from trainmaster_api.tuning.space import Axis

from .trials import TrialEnd, TrialRecord

if TYPE_CHECKING:
    from .study import Study

LEAST_RANKED = 8
"""Trials below which nothing is said about importances."""


@dataclass(frozen=True)
class Goal:
    """An objective.

    Attributes:
        metric: Its metric.
        is_higher: Whether higher is better.
    """

    metric: str
    is_higher: bool


@dataclass(frozen=True)
class Findings:
    """A search that is drawn.

    Attributes:
        goals: Its objectives.
        axes: Its parameters.
        trials: All that were begun, by number.
        best: Numbers of the best one, or of the front.
    """

    goals: Sequence[Goal]
    axes: Sequence[Axis]
    trials: Sequence[TrialRecord]
    best: frozenset[int]

    def encode(self) -> str:
        """Return JSON."""
        return json.dumps({
            "goals": [asdict(each) for each in self.goals],
            "axes": [asdict(each) for each in self.axes],
            "trials": [asdict(each) for each in self.trials],
            "best": sorted(self.best),
        })  # fmt: skip

    @classmethod
    def decode(cls, text: str) -> Findings:
        """Return the findings of `encode`."""
        found = json.loads(text)
        trials = [
            TrialRecord(**{
                **each, "end": TrialEnd(each["end"]) if each["end"] else None, "objectives": tuple(each["objectives"]),
            })
            for each in found["trials"]
        ]  # fmt: skip
        goals, axes = [Goal(**each) for each in found["goals"]], [Axis(**each) for each in found["axes"]]
        return cls(goals, axes, trials, frozenset(found["best"]))

    @property
    def searched(self) -> list[Axis]:
        """The parameters of which more than one value is tried."""
        return [each for each in self.axes if each.kind != "constant"]

    @property
    def valued(self) -> list[TrialRecord]:
        """The trials with finite values of all objectives that are complete or were pruned."""
        ends = (TrialEnd.COMPLETE, TrialEnd.PRUNED)
        return [each for each in self.trials if each.end in ends and each.objectives and _is_finite(each.objectives)]

    @property
    def complete(self) -> list[TrialRecord]:
        """Those of them that are complete."""
        return [each for each in self.valued if each.end is TrialEnd.COMPLETE]

    @property
    def pruned(self) -> list[TrialRecord]:
        """Those of them that were pruned."""
        return [each for each in self.valued if each.end is TrialEnd.PRUNED]

    @property
    def valueless(self) -> list[TrialRecord]:
        """The trials that have ended without a value: failed, diverged, out of memory."""
        valued = {each.number for each in self.valued}
        return [each for each in self.trials if each.end is not None and each.number not in valued]


def importances(found: Findings) -> dict[str, float]:
    """Return how much of the difference between good trials and others comes from each parameter, largest first.

    By PED-ANOVA, which compares how the best tenth of the trials is distributed with how all are. Pruned trials count
    with what they had reached: they aren't among the best.

    Raises:
        ValueError: There are too few trials, or nothing to compare; the message is a clause.
    """
    import optuna

    from .parameters import finished

    trials = found.valued
    if len(trials) < LEAST_RANKED:
        raise ValueError(f"{len(trials)} trials have values, and {LEAST_RANKED} are the least")
    if len({each.objectives for each in trials}) == 1:
        raise ValueError("all trials have the same values")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["maximize" if each.is_higher else "minimize" for each in found.goals])
    for trial in trials:
        study.add_trial(finished(found.axes, trial.values, trial.objectives))
    ranked = optuna.importance.get_param_importances(study)
    return {name: ranked[name] for name in sorted(ranked, key=lambda each: -ranked[each]) if _is_finite([ranked[name]])}


def _is_finite(values: Sequence[float]) -> bool:
    return all(map(math.isfinite, values))


def findings(study: Study, axes: Sequence[Axis]) -> Findings:
    """Return the findings of a search."""
    goals = [Goal(each.metric, is_high) for each, is_high in zip(study.tuning.objectives, study.higher, strict=True)]
    return Findings(goals, axes, study.trials(), frozenset(each.number for each in study.front()))
