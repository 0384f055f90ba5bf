"""Texts of a status: printed columns, and times as Kubernetes writes them (RFC 3339 in UTC)."""

from __future__ import annotations

from datetime import UTC, datetime

from trainmaster_api.text import duration_text


def percent_text(step: int, total: int) -> str:
    """Return `42%`; 100% only when every step is done; `step 420` of a program that doesn't say where it ends."""
    if total <= 0:
        return f"step {step}" if step else ""
    return f"{min(100, 100 * step // total)}%"


def eta_text(seconds: int | None) -> str:
    """Return `45s`, `3m20s`, `2h5m`, `3d4h`; empty if unknown."""
    return duration_text(seconds, unknown="")


def metric_text(name: str, values: dict[str, float]) -> str:
    """Return `val/accuracy=0.981`; without such a metric the training loss, if there is one, else nothing."""
    shown = name if name in values else "train/loss"
    return f"{shown}={values[shown]:.4g}"[:64] if shown in values else ""


def parse_time(text: str | None) -> datetime | None:
    """Parse an RFC 3339 time; None for nothing and for anything else."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def format_time(moment: datetime) -> str:
    """Return RFC 3339 in UTC with whole seconds, as in metav1.Time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
