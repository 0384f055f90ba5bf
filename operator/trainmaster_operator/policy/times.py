"""Times as Kubernetes writes them: RFC 3339 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def parse_time(text: str | None) -> datetime | None:
    """The moment behind an RFC 3339 text; None for nothing and for text that is none."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds: what metav1.Time holds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
