"""What is said of a search while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainmaster_api.spec.tuning import Tuning

from trainmaster_trainer.tuning.trials import Suggestion, TrialEnd, TrialRecord


def shown(values: Mapping[str, Any]) -> str:
    """Return the parameters of a trial in one line."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def begun(found: Suggestion) -> str:
    """Return that a trial begins or continues."""
    if found.source not in (None, found.number):
        return f"trial {found.number} continues from trial {found.source}: {shown(found.values)}"
    return f"trial {found.number} {'continues' if found.is_resumed else 'begins'}: {shown(found.values)}"


def told(record: TrialRecord, end: TrialEnd, tuning: Tuning) -> str:
    """Return how a trial has ended."""
    values = ", ".join(
        f"{objective.metric} {value:.4f}"
        for objective, value in zip(tuning.objectives, record.objectives, strict=False)
    )
    words = {
        TrialEnd.COMPLETE: "is complete",
        TrialEnd.PRUNED: f"was pruned after {record.time} validations",
        TrialEnd.PAUSED: f"has ended round {len(record.rounds) + 1} after {record.time} validations",
        TrialEnd.STOPPED: f"has saved and stopped after {record.time} validations",
        TrialEnd.DIVERGED: "has diverged",
        TrialEnd.OUT_OF_MEMORY: "needs more memory than there is",
        TrialEnd.FAILED: f"failed: {record.reason}",
    }[end]
    return f"trial {record.number} {words}" + (f": {values}" if values else "")
