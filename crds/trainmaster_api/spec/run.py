"""`spec.run`: how the run is supervised."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainmaster_api.address import Uri
from trainmaster_api.types import Model


class Retries(Model):
    """How often a failed attempt is followed by another."""

    max: Annotated[int, Field(ge=0, le=1000)] = 3
    """Maximum number of attempts after counted failures; the list of reasons says which failures count."""


class Run(Model):
    """How the run is supervised; fields shared with batch/v1 Job mean what they mean there."""

    suspend: bool = False
    """True: save a checkpoint, stop, delete the pods; false again: resume from that step."""
    retries: Retries = Retries()
    """Retry budget."""
    active_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    """Seconds after startTime until the job fails with DeadlineExceeded; a resume restarts the clock."""
    pending_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    """Seconds that an attempt may wait for all its pods before the job fails; absent: no limit."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    """Seconds after the end until the TrainingJob is deleted; its storage stays."""
    stall_seconds: Annotated[int, Field(ge=10)] = 600
    """Seconds without a new step until an attempt counts as stalled; at least 600 while it loads or packages."""
    stop_grace_seconds: Annotated[int, Field(ge=5, le=3600)] = 60
    """Seconds that a stop (suspend, drain, eviction) may take to save."""
    resume_from: Annotated[Uri, Field(examples=["s3://bucket/prefix/default/digits/0f3c9a1b2d4e"])] | None = None
    """Run to start from: address of another run's directory. Weights, optimizer and position are taken over."""
