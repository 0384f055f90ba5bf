"""Where a job says when its search ends, so that it can be raised there. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainmaster_api.spec.job import Spec
from trainmaster_api.spec.shorthand import budget_text


@dataclass(frozen=True)
class Limit:
    """A field that ends a search, with a value.

    Attributes:
        steps: Its place below `spec`.
        value: What is written there.
    """

    steps: tuple[str, ...]
    value: int | float | str

    @property
    def path(self) -> str:
        """Its dotted path."""
        return ".".join(("spec", *self.steps))

    def patch(self) -> dict[str, Any]:
        """Return a merge patch of a job that sets it."""
        found: Any = self.value
        for step in reversed(("spec", *self.steps)):
            found = {step: found}
        return dict(found)


def trials_limit(spec: Spec, trials: int) -> Limit:
    """Return where a job with a search has its number of trials."""
    if spec.tuning_or_none is None and spec.hyperparameter_search is not None:
        return Limit(("hyperparameterSearch", "budget"), trials)
    return Limit(("tuning", "budget", "maxTrials"), trials)


def hours_limit(spec: Spec, hours: float) -> Limit:
    """Return where a job with a search has its hours."""
    if spec.tuning_or_none is None and spec.hyperparameter_search is not None:
        return Limit(("hyperparameterSearch", "budget"), budget_text(hours))
    return Limit(("tuning", "budget", "maxHours"), int(hours) if float(hours).is_integer() else hours)
