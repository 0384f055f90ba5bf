"""`status`: written by the operator alone. Conditions are the truth; `phase` is for the printed column."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .reasons import FailureClass, Phase
from .spec.tracking import MAX_TRACKERS
from .types import Model

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class Condition(Model):
    """A metav1.Condition."""

    type: Annotated[str, Field(max_length=316)]
    """Condition type in CamelCase."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    observed_generation: int = 0
    """Generation of the spec that it speaks of."""
    last_transition_time: Time
    """When `status` last changed."""
    reason: Annotated[str, Field(max_length=1024)]
    """One word from the list of reasons."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """A sentence for people."""


class Restarts(Model):
    """Attempts after the first, and recoveries inside an attempt."""

    total: int = 0
    """New attempts for whatever cause."""
    counted: int = 0
    """Those that count against run.retries.max."""
    recoveries: int = 0
    """Times that a worker was lost and replaced within an attempt."""


class WorkersStatus(Model):
    """Worker pods of the current attempt."""

    desired: int = 0
    """How many there should be."""
    ready: int = 0
    """How many are Ready."""


class Progress(Model):
    """How far the run is, by the trainer's last message."""

    step: int = 0
    """Last finished optimizer step."""
    total_steps: int = 0
    """Steps of the whole run."""
    epoch: int = 0
    """Epoch of that step, from 0."""
    percent: Annotated[str, Field(max_length=8)] = ""
    """`42%`, for the printed column."""
    eta_seconds: int | None = None
    """Seconds to the end at the present pace."""
    eta: Annotated[str, Field(max_length=16)] = ""
    """The same for people: `3m20s`."""
    metric: Annotated[str, Field(max_length=64)] = ""
    """The job's metric for the printed column: `val/loss=0.123`."""
    metrics: Annotated[dict[str, float], Field(max_length=64)] = {}
    """Latest value of each metric."""
    step_time: Time | None = None
    """When that step was finished, by the trainer's clock."""
    time: Time | None = None
    """When the trainer reported it."""


class CheckpointStatus(Model):
    """The newest committed checkpoint."""

    step: int
    """Optimizer step that it holds."""
    attempt: int
    """Attempt that wrote it."""
    uri: str
    """Where it is."""
    time: Time
    """When its manifest was written."""


class AttemptStatus(Model):
    """One attempt of the job."""

    attempt: int
    """Its number, from 1."""
    start_time: Time
    """When its pods were created."""
    end_time: Time | None = None
    """When its result was known."""
    duration: Annotated[str, Field(max_length=16)] = ""
    """`training.loop.duration` that it trains to."""
    result: Literal["", "Complete", "Failed", "Suspended", "Extended"] = ""
    """How it ended; empty while it runs. Extended: stopped at a checkpoint, because loop.duration was raised."""
    failure_class: FailureClass | None = None
    """Why it ended, when it failed."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """A sentence for people."""
    node: str = ""
    """Node of the pod that failed."""
    rank: int | None = None
    """First failing rank."""
    exit_code: int | None = None
    """Exit code of the container that failed."""
    last_lines: Annotated[list[str], Field(max_length=20)] = []
    """Last lines of its log."""
    resumed_from_step: int | None = None
    """Step of the checkpoint that the attempt began with; absent: from the start."""
    last_step: int | None = None
    """Last finished optimizer step that is known of it."""
    recoveries: int = 0
    """Workers lost and replaced within it."""
    lost_steps: int | None = None
    """Steps that had been done and had to be done again."""
    recovery_seconds: int | None = None
    """Seconds from the end of the attempt before to this attempt's first new step."""


class StartupTimings(Model):
    """Where the time of the current attempt's start went, in seconds from its creation."""

    scheduled_seconds: float | None = None
    """Until the last pod had a node."""
    started_seconds: float | None = None
    """Until the last container ran."""
    ray_ready_seconds: float | None = None
    """Until all workers had joined the Ray cluster."""
    loaded_seconds: float | None = None
    """Until framework, data and model were loaded in every worker."""
    first_step_seconds: float | None = None
    """Until the first optimizer step was done."""


class TrackerStatus(Model):
    """The run as a tracker shows it."""

    name: Annotated[str, Field(max_length=253)]
    """Name of the tracker: `mlflow`, or the class of one of the user's own."""
    url: Annotated[str, Field(max_length=2048)] = ""
    """Where a person sees the run; empty: the tracker has no page for it."""


class Status(Model):
    """Observed state of a TrainingJob."""

    observed_generation: int = 0
    """Generation of the spec that this status speaks of."""
    phase: Phase = Phase.PENDING
    """Derived from the conditions, for the printed column."""
    reason: Annotated[str, Field(max_length=1024)] = ""
    """Reason of the condition that decides the phase, for `-o wide`."""
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    """The truth."""
    attempt: int = 0
    """Number of the newest attempt; only grows."""
    restarts: Restarts = Restarts()
    """How often it was started again."""
    workers: WorkersStatus = WorkersStatus()
    """Worker pods."""
    workers_ready: Annotated[str, Field(max_length=16)] = ""
    """`2/2`, for the printed column."""
    start_time: Time | None = None
    """Start of the first attempt, or of the first one after a resume."""
    completion_time: Time | None = None
    """When it became Complete or Failed."""
    progress: Progress | None = None
    """How far it is."""
    last_checkpoint: CheckpointStatus | None = None
    """Newest committed checkpoint."""
    attempts: Annotated[list[AttemptStatus], Field(max_length=10)] = []
    """The last ten attempts, oldest first."""
    waiting_since: Time | None = None
    """Since when pods have been refused for a reason that can go away by itself, such as a quota."""
    startup_timings: StartupTimings | None = None
    """Where the time of the current attempt's start went."""
    run_uri: str = ""
    """The run's directory in storage."""
    model_uri: str = ""
    """The trained model, once complete."""
    test_metrics: Annotated[dict[str, float], Field(max_length=64)] = {}
    """Metrics on the held-out test split, once complete."""
    trackers: Annotated[
        list[TrackerStatus],
        Field(
            max_length=MAX_TRACKERS,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    """Where the run is shown."""
    dashboard: str = ""
    """Command that opens the Ray dashboard."""
