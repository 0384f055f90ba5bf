"""`status`: written only by the operator. Conditions are the source of truth; `phase` is for the printer column."""

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
    """Status of the condition."""
    observed_generation: int = 0
    """Generation of the spec that the condition was set for."""
    last_transition_time: Time
    """Time at which `status` last changed."""
    reason: Annotated[str, Field(max_length=1024)]
    """Reason in CamelCase, one of those in docs/reasons.md."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """Human-readable message."""


class Restarts(Model):
    """Number of restarts of a job."""

    total: int = 0
    """Number of attempts after the first, for any cause."""
    counted: int = 0
    """Number of attempts that counted against run.retries.max."""
    recoveries: int = 0
    """Number of times that a worker was lost and replaced within an attempt."""


class WorkersStatus(Model):
    """Worker pods of the current attempt."""

    desired: int = 0
    """Desired number of worker pods."""
    ready: int = 0
    """Number of worker pods that are Ready."""


class Progress(Model):
    """Progress of the run, as last reported by the trainer."""

    step: int = 0
    """Last completed optimizer step."""
    total_steps: int = 0
    """Number of steps of the whole run."""
    epoch: int = 0
    """Epoch of that step, counted from 0."""
    percent: Annotated[str, Field(max_length=24)] = ""
    """Progress for the printer column: `42%`, `step 420` of a program that doesn't say where it ends, or `12/16 trials`
    of a search."""
    eta_seconds: int | None = None
    """Estimated seconds until the end, at the current speed."""
    eta: Annotated[str, Field(max_length=16)] = ""
    """Estimated time until the end, in human-readable form: `3m20s`."""
    metric: Annotated[str, Field(max_length=64)] = ""
    """The job's metric for the printer column: `val/loss=0.123`."""
    metrics: Annotated[dict[str, float], Field(max_length=64)] = {}
    """Latest value of each metric."""
    step_time: Time | None = None
    """Time at which that step completed, by the trainer's clock."""
    time: Time | None = None
    """Time at which the trainer reported it."""


class CheckpointStatus(Model):
    """The newest committed checkpoint."""

    step: int
    """Optimizer step of the checkpoint."""
    attempt: int
    """Attempt that wrote it."""
    uri: str
    """Address of the checkpoint."""
    time: Time
    """Time at which its manifest was written, which commits it."""


class AttemptStatus(Model):
    """One attempt of the job."""

    attempt: int
    """Number of the attempt, from 1."""
    start_time: Time
    """Time at which its pods were created."""
    end_time: Time | None = None
    """Time at which its result was known."""
    duration: Annotated[str, Field(max_length=16)] = ""
    """`training.loop.duration` that the attempt trains to."""
    max_trials: int | None = None
    """Number of trials that the attempt searches to; unset without a search, and for all of a grid."""
    max_hours: float | None = None
    """Hours after which the search of the attempt ends; unset where there is no such limit."""
    result: Literal["", "Complete", "Failed", "Suspended", "Extended"] = ""
    """Result of the attempt; empty while it runs. Extended: stopped at a checkpoint because loop.duration or
    the budget of the search was raised."""
    failure_class: FailureClass | None = None
    """Failure class, if the attempt failed."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """Human-readable message."""
    node: str = ""
    """Node of the pod that failed."""
    rank: int | None = None
    """Rank that failed first."""
    exit_code: int | None = None
    """Exit code of the container that failed."""
    last_lines: Annotated[list[str], Field(max_length=20)] = []
    """Last lines of that container's log."""
    resumed_from_step: int | None = None
    """Step of the checkpoint that the attempt resumed from; unset if it started from step 0."""
    last_step: int | None = None
    """Last completed optimizer step of the attempt, as far as known."""
    recoveries: int = 0
    """Number of times that workers were lost and replaced within the attempt."""
    lost_steps: int | None = None
    """Number of completed steps that had to be repeated."""
    recovery_seconds: int | None = None
    """Seconds from the end of the previous attempt to this attempt's first new step."""


class StartupTimings(Model):
    """Startup of the current attempt, each value in seconds from its creation."""

    scheduled_seconds: float | None = None
    """Until the last pod was scheduled."""
    started_seconds: float | None = None
    """Until the last container started."""
    ray_ready_seconds: float | None = None
    """Until all workers had joined the Ray cluster."""
    loaded_seconds: float | None = None
    """Until the framework, the data and the model were loaded in every worker."""
    first_step_seconds: float | None = None
    """Until the first optimizer step completed."""


class StorageStatus(Model):
    """The storage of the run, with what the operator filled in: by it `trainmaster logs` finds logs without pods."""

    endpoint: Annotated[str, Field(max_length=253)] | None = None
    """S3 endpoint; unset for AWS and for a directory."""
    region: Annotated[str, Field(max_length=63)] = ""
    """S3 region."""
    credentials_secret: Annotated[str, Field(max_length=253)] | None = None
    """Secret in the job's namespace with the keys."""


class TrackerStatus(Model):
    """The run in an experiment tracker."""

    name: Annotated[str, Field(max_length=253)]
    """Name of the tracker: `mlflow`, or the class of your own."""
    url: Annotated[str, Field(max_length=2048)] = ""
    """URL of the run; empty if the tracker has none."""


class TuningStatus(Model):
    """The job's search, as last reported by the trainer."""

    total: int = 0
    """Number of trials that there will be."""
    running: int = 0
    """Number of trials that were begun and haven't ended."""
    complete: int = 0
    """Number of trials that had all their validations."""
    pruned: int = 0
    """Number of trials that were stopped because others are better, that diverged, or that need more memory than there
    is."""
    failed: int = 0
    """Number of trials that failed."""
    best: float | None = None
    """Best value of the objective; unset if there is none yet, or with several objectives."""
    best_trial: int | None = None
    """Number of the trial with the best value."""
    gpu_hours: float | None = None
    """GPU-hours that its trials have used; unset if they have no GPUs."""
    gpu_hours_saved: float | None = None
    """GPU-hours that pruned trials would have used had they run to the end at their own pace."""
    summary: Annotated[str, Field(max_length=192)] = ""
    """Counters, best and GPU-hours, in human-readable form: `12/16 trials, best val/accuracy=0.981, 3.2 GPU-hours, 7.1
    saved by pruning`."""


class Status(Model):
    """Observed state of a TrainingJob."""

    observed_generation: int = 0
    """Generation of the spec that was last reconciled."""
    phase: Phase = Phase.PENDING
    """Phase of the job, derived from the conditions for the printer column."""
    reason: Annotated[str, Field(max_length=1024)] = ""
    """Reason of the condition that determines the phase, for `-o wide`."""
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    """Conditions of the job, the source of truth of its state."""
    attempt: int = 0
    """Number of the newest attempt; never decreases."""
    restarts: Restarts = Restarts()
    """Number of restarts of the job."""
    workers: WorkersStatus = WorkersStatus()
    """Worker pods of the current attempt."""
    workers_ready: Annotated[str, Field(max_length=16)] = ""
    """Ready and desired workers for the printer column: `2/2`."""
    start_time: Time | None = None
    """Time at which the first attempt started, or the first one after a resume."""
    completion_time: Time | None = None
    """Time at which the job became Complete or Failed."""
    progress: Progress | None = None
    """Progress of the run, as last reported by the trainer."""
    tuning: TuningStatus | None = None
    """The job's search; unset if it has none."""
    last_checkpoint: CheckpointStatus | None = None
    """The newest committed checkpoint."""
    attempts: Annotated[list[AttemptStatus], Field(max_length=10)] = []
    """The last ten attempts, oldest first."""
    waiting_since: Time | None = None
    """Time since which pods have been rejected for a transient reason, such as a quota."""
    startup_timings: StartupTimings | None = None
    """Startup timings of the current attempt."""
    run_uri: str = ""
    """Address of the run's directory in storage."""
    storage: StorageStatus | None = None
    """How that storage is reached."""
    model_uri: str = ""
    """Address of the trained model, once complete."""
    data_fingerprint: Annotated[str, Field(max_length=64)] = ""
    """First 12 digits of the checksum that identifies the run's data, the same as in `trainmaster data` and MLflow;
    empty until the first step, and for data that has none. An attempt on other data fails as DataChanged."""
    resume: Literal["", "Exact", "AsItsLoader", "AsTheScript"] = ""
    """How exactly the run resumes after an interruption. Exact: the same weights, to the bit; AsItsLoader: exact if the
    state of your own stream is; AsTheScript: from what your program itself saves. Empty until the first step."""
    test_metrics: Annotated[dict[str, float], Field(max_length=64)] = {}
    """Metrics on the held-out test split, once complete."""
    trackers: Annotated[
        list[TrackerStatus],
        Field(
            max_length=MAX_TRACKERS,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    """Experiment trackers that the run is reported to."""
    dashboard: str = ""
    """Command that opens the Ray dashboard."""
