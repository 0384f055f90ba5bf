"""The trials of a search as a table and as JSON, and its winner in words. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainmaster_api.spec.tuning import Tuning
from trainmaster_api.text import value_text

from trainmaster_cli.columns import aligned

if TYPE_CHECKING:
    from trainmaster_trainer.tuning.stored import Found
    from trainmaster_trainer.tuning.trials import TrialRecord

_LONGEST = 80
UNFINISHED = "Unfinished"
"""How a trial is said to end that runs, or that will be continued."""


def in_order(trials: Sequence[TrialRecord], tuning: Tuning, sort: str) -> list[TrialRecord]:
    """Return trials by `number`, or by `metric`: the best of the first objective first, those without a value last."""
    if sort == "number":
        return sorted(trials, key=lambda each: each.number)
    sign = -1 if tuning.objectives[0].is_higher_better else 1

    def key(trial: TrialRecord) -> tuple[bool, float, int]:
        value = trial.objectives[0] if trial.objectives else None
        return (value is None, sign * value if value is not None else 0.0, trial.number)

    return sorted(trials, key=key)


def summary(found: Found, name: str) -> str:
    """Return how far a search is, in one line."""
    ends = [str(each.end) if each.end else UNFINISHED for each in found.trials]
    ended = sum(end != UNFINISHED for end in ends)
    counts = ", ".join(f"{ends.count(end)} {end}" for end in dict.fromkeys(sorted(ends)))
    far = f"{len(ends)} trials" if found.why else f"{ended} of {found.total} trials have ended"
    return f"{name}: {far} ({counts})" + (f"; {found.why}" if found.why else "")


def table(trials: Sequence[TrialRecord], tuning: Tuning) -> list[str]:
    """Return the lines of a table of trials, the header first."""
    metrics = [each.metric for each in tuning.objectives]
    header = ("NUMBER", "END", "VALIDATIONS", *metrics, *tuning.space, "SECONDS", "REASON")
    return aligned([header, *(_row(each, len(metrics), list(tuning.space)) for each in trials)])


def _row(trial: TrialRecord, objectives: int, names: Sequence[str]) -> tuple[str, ...]:
    values = [value_text(each) for each in trial.objectives] or ["-"] * objectives
    reason = " ".join(trial.reason.split()) or "-"
    return (
        str(trial.number), str(trial.end) if trial.end else UNFINISHED, str(trial.time), *values,
        *(value_text(trial.values[name]) if name in trial.values else "-" for name in names),
        f"{trial.seconds:.1f}" if trial.seconds else "-",
        reason if len(reason) <= _LONGEST else f"{reason[: _LONGEST - 1]}…",
    )  # fmt: skip


def in_words(trial: TrialRecord, tuning: Tuning) -> str:
    """Return a trial in one line: `trial 3: val/accuracy 0.9778 with optimizer.lr 0.01`."""
    reached = _named({each.metric: v for each, v in zip(tuning.objectives, trial.objectives, strict=False)})
    return f"trial {trial.number}: {reached or 'no value'} with {_named(trial.values)}"


def _named(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value_text(value)}" for name, value in values.items())


def as_json(found: Found, tuning: Tuning, trials: Sequence[TrialRecord], name: str) -> str:
    """Return a search as a JSON document."""
    goals = [
        {"metric": each.metric, "goal": "maximize" if each.is_higher_better else "minimize"}
        for each in tuning.objectives
    ]
    document = {
        "name": name, "objectives": goals, "total": found.total, "why": found.why, "best": found.best,
        "front": found.front, "trials": [each.wire() for each in trials],
    }  # fmt: skip
    return json.dumps(document, indent=1, ensure_ascii=False)
