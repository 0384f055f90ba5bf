"""`spec.run`: retries, deadlines and suspension."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainmaster_api.address import Uri
from trainmaster_api.types import Model


class Retries(Model):
    """Retry budget of the job."""

    max: Annotated[int, Field(ge=0, le=1000)] = 3
    """Maximum number of retries after counted failures; docs/reasons.md lists which failures are counted."""


class Run(Model):
    """Retries, deadlines and suspension. Fields of the same name as in a batch/v1 Job have the same meaning."""

    suspend: bool = False
    """If true, a checkpoint is saved and the pods are deleted. Set it to false to resume from that step."""
    retries: Retries = Retries()
    """Retry budget."""
    active_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    """Seconds after startTime until the job fails with DeadlineExceeded; restarted when the job is resumed."""
    pending_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    """Seconds that an attempt may wait for all its pods before the job fails. If unset, there is no limit."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    """Seconds after the end until the TrainingJob is deleted; its storage is kept."""
    stall_seconds: Annotated[int, Field(ge=10)] = 600
    """Seconds without a new step after which an attempt is considered stalled; at least 600 while it loads or
    packages."""
    stop_grace_seconds: Annotated[int, Field(ge=5, le=3600)] = 60
    """Grace period in seconds for saving a checkpoint on a stop (suspend, drain, eviction)."""
    resume_from: Annotated[Uri, Field(examples=["s3://bucket/prefix/default/digits/0f3c9a1b2d4e"])] | None = None
    """Address of another run's directory to start from. Weights, optimizer state and data position are restored."""
