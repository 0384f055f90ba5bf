"""The table of `trainmaster ls`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from trainmaster_cli.columns import aligned

from .api import Object
from .jobs import age, status_of

_HEADER = ("NAME", "PHASE", "WORKERS", "PROGRESS", "ETA", "METRIC", "RESTARTS", "CHECKPOINT", "AGE")


def table(jobs: Sequence[Object], now: datetime, *, with_namespace: bool, with_reason: bool = False) -> list[str]:
    """Return the lines of a table like that of `kubectl get tj`, the header first.

    Args:
        jobs: What to list.
        now: The present time.
        with_namespace: Whether the first column is the namespace.
        with_reason: Whether the last column is the reason of the phase.
    """
    rows = [_row(job, now) for job in jobs]
    header: tuple[str, ...] = _HEADER
    if with_namespace:
        header = ("NAMESPACE", *header)
        rows = [(job["metadata"]["namespace"], *row) for job, row in zip(jobs, rows, strict=True)]
    if with_reason:
        header = (*header, "REASON")
        rows = [(*row, status_of(job).get("reason") or "-") for job, row in zip(jobs, rows, strict=True)]
    return aligned([header, *rows])


def _row(job: Object, now: datetime) -> tuple[str, ...]:
    status = status_of(job)
    progress, restarts = status.get("progress") or {}, status.get("restarts") or {}
    return (
        job["metadata"]["name"],
        status.get("phase") or "Pending",
        status.get("workersReady") or "-",
        progress.get("percent") or "-",
        progress.get("eta") or "-",
        progress.get("metric") or "-",
        str(restarts.get("total", 0)),
        age((status.get("lastCheckpoint") or {}).get("time"), now),
        age(job["metadata"].get("creationTimestamp"), now),
    )
