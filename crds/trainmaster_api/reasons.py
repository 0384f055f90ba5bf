"""Conditions, reasons, phases and failure classes: every CamelCase word that a user can read in a status.

The page docs/reasons.md is generated from this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ConditionType(StrEnum):
    """Condition types of a TrainingJob. `Complete` and `Failed` exclude each other and are final."""

    ACCEPTED = "Accepted"
    SUSPENDED = "Suspended"
    PROVISIONED = "Provisioned"
    RUNNING = "Running"
    CHECKPOINTED = "Checkpointed"
    COMPLETE = "Complete"
    FAILED = "Failed"
    DEGRADED = "Degraded"


class Phase(StrEnum):
    """Derived from the conditions for the printed column; never read."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"


class Reason(StrEnum):
    """Reasons of conditions that are no failure; a failure's reason is its FailureClass."""

    SPEC_VALID = "SpecValid"
    INVALID_SPEC = "InvalidSpec"
    NOT_SUSPENDED = "NotSuspended"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    PODS_CREATED = "PodsCreated"
    PODS_READY = "PodsReady"
    PODS_REMOVED = "PodsRemoved"
    WAITING_FOR_OLD_PODS = "WaitingForOldPods"
    REPLACING_WORKER = "ReplacingWorker"
    BACKING_OFF = "BackingOff"
    STARTING = "Starting"
    TRAINING = "Training"
    RECOVERING = "Recovering"
    STOPPED = "Stopped"
    NO_CHECKPOINT = "NoCheckpoint"
    CHECKPOINT_COMMITTED = "CheckpointCommitted"
    TRAINING_COMPLETE = "TrainingComplete"
    NAME_CONFLICT = "NameConflict"
    HEALTHY = "Healthy"


CONDITION_MEANINGS: dict[ConditionType, str] = {
    ConditionType.ACCEPTED: "the spec can be carried out; False: it can't, and the message lists every problem",
    ConditionType.SUSPENDED: "the job is stopped at a checkpoint, or on the way there, because run.suspend is true",
    ConditionType.PROVISIONED: "the pods of the current attempt exist and are Ready",
    ConditionType.RUNNING: "steps are being made",
    ConditionType.CHECKPOINTED: "a committed checkpoint exists, from which the job would go on",
    ConditionType.COMPLETE: "the model is trained, evaluated and stored; final",
    ConditionType.FAILED: "the job is given up, for the reason that is a failure class; final",
    ConditionType.DEGRADED: "the operator can't do its part at the moment and tries again",
}

REASON_MEANINGS: dict[Reason, str] = {
    Reason.SPEC_VALID: "the spec has no problem",
    Reason.INVALID_SPEC: "the spec has problems; the message names each with its path and what is accepted",
    Reason.NOT_SUSPENDED: "run.suspend is false",
    Reason.SUSPENDING: "a checkpoint is being saved before the pods are deleted",
    Reason.SUSPENDED: "the pods are gone; the message names the step that the job will go on from",
    Reason.RESUMED: "run.suspend went back to false",
    Reason.PODS_CREATED: "the pods of the attempt exist, not all of them are Ready",
    Reason.PODS_READY: "all pods of the attempt are Ready",
    Reason.PODS_REMOVED: "the attempt is over and its pods are deleted",
    Reason.WAITING_FOR_OLD_PODS: "the next attempt waits until no pod of the one before is left",
    Reason.REPLACING_WORKER: "a worker pod was lost and is made anew in the same attempt",
    Reason.BACKING_OFF: "the next attempt waits, longer after each failure without a new checkpoint",
    Reason.STARTING: "pods are Ready; framework, data and model are being loaded",
    Reason.TRAINING: "steps are being made",
    Reason.RECOVERING: "a worker was lost; training goes on from the newest checkpoint",
    Reason.STOPPED: "nothing runs at the moment",
    Reason.NO_CHECKPOINT: "nothing was saved yet; a restart would begin from the start",
    Reason.CHECKPOINT_COMMITTED: "the message names the newest committed checkpoint",
    Reason.TRAINING_COMPLETE: "the run came to its end; the message has the test metrics",
    Reason.NAME_CONFLICT: "an object of somebody else has the name of one of ours; it is never touched",
    Reason.HEALTHY: "the operator can do its part",
}


class Retry(StrEnum):
    """What a failure class costs."""

    NEVER = "never"
    """The same input fails the same way: the job fails at once."""
    COUNTED = "counted"
    """Another attempt, counted against run.retries.max."""
    FREE = "free"
    """Infrastructure took it away: another attempt after a back-off, not counted."""


class FailureClass(StrEnum):
    """Why an attempt ended; the reason of the `Failed` condition and of an entry in status.attempts."""

    USER_CODE_ERROR = "UserCodeError"
    INVALID_CONFIGURATION = "InvalidConfiguration"
    DATA_ERROR = "DataError"
    HOST_OUT_OF_MEMORY = "HostOutOfMemory"
    GPU_OUT_OF_MEMORY = "GpuOutOfMemory"
    NON_FINITE_LOSS = "NonFiniteLoss"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    STORAGE_DENIED = "StorageDenied"
    WORKER_LOST = "WorkerLost"
    HEAD_LOST = "HeadLost"
    NODE_LOST = "NodeLost"
    PREEMPTED = "Preempted"
    IMAGE_PULL = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    POD_REJECTED = "PodRejected"
    STALLED = "Stalled"
    GPU_FAULT = "GpuFault"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    CANCELLED = "Cancelled"
    INTERNAL_ERROR = "InternalError"


@dataclass(frozen=True, slots=True)
class FailureRule:
    """What a class means, what it costs, and what the user does about it."""

    retry: Retry
    meaning: str
    advice: str


FAILURE_RULES: dict[FailureClass, FailureRule] = {
    FailureClass.USER_CODE_ERROR: FailureRule(
        Retry.NEVER, "the training code raised an exception", "read the last lines and fix the code"
    ),
    FailureClass.INVALID_CONFIGURATION: FailureRule(
        Retry.NEVER, "the specification can't be carried out", "change the field that the message names"
    ),
    FailureClass.DATA_ERROR: FailureRule(
        Retry.NEVER, "the data can't be read or isn't what the spec says", "fix what the message names"
    ),
    FailureClass.HOST_OUT_OF_MEMORY: FailureRule(
        Retry.COUNTED, "a container reached its memory limit", "raise cluster.workers.memory or cluster.head.memory"
    ),
    FailureClass.GPU_OUT_OF_MEMORY: FailureRule(
        Retry.COUNTED, "a GPU ran out of memory", "raise loop.gradientAccumulation or lower data.batchSize"
    ),
    FailureClass.NON_FINITE_LOSS: FailureRule(
        Retry.NEVER, "loss or gradients became NaN or infinite", "lower optimizer.lr or set loop.clipNorm"
    ),
    FailureClass.STORAGE_UNAVAILABLE: FailureRule(
        Retry.COUNTED, "storage didn't answer for minutes", "check storage.endpoint and the storage server"
    ),
    FailureClass.STORAGE_DENIED: FailureRule(
        Retry.NEVER, "storage refused: no such bucket, wrong key, or no permission",
        "check storage.uri and the keys in storage.credentialsSecret",
    ),
    FailureClass.WORKER_LOST: FailureRule(
        Retry.COUNTED, "a worker process or pod ended unasked and could not be replaced", "read the worker's log"
    ),
    FailureClass.HEAD_LOST: FailureRule(
        Retry.COUNTED, "the head pod ended or vanished without a result", "read the head's log"
    ),
    FailureClass.NODE_LOST: FailureRule(Retry.FREE, "a node stopped answering", "nothing: the job starts elsewhere"),
    FailureClass.PREEMPTED: FailureRule(
        Retry.FREE, "a pod was evicted, preempted or drained", "nothing: the job starts again when there is room"
    ),
    FailureClass.IMAGE_PULL: FailureRule(
        Retry.NEVER, "the image can't be pulled", "check cluster.image and template.imagePullSecrets"
    ),
    FailureClass.UNSCHEDULABLE: FailureRule(
        Retry.NEVER, "no node has room for a pod", "lower cpus, memory or gpus, or add nodes"
    ),
    FailureClass.POD_REJECTED: FailureRule(
        Retry.NEVER, "the API server refused a pod (quota, admission, bad template)", "change what the message names"
    ),
    FailureClass.STALLED: FailureRule(
        Retry.COUNTED, "no step for run.stallSeconds", "look for a deadlock, or raise run.stallSeconds"
    ),
    FailureClass.GPU_FAULT: FailureRule(Retry.FREE, "a GPU or NCCL fault", "drain the node that the message names"),
    FailureClass.DEADLINE_EXCEEDED: FailureRule(
        Retry.NEVER, "run.activeDeadlineSeconds or run.pendingDeadlineSeconds passed", "raise the deadline"
    ),
    FailureClass.CANCELLED: FailureRule(Retry.NEVER, "stopped by the user", "run it again: it resumes"),
    FailureClass.INTERNAL_ERROR: FailureRule(
        Retry.COUNTED, "a fault of Trainmaster or Ray", "report it with the job's events.jsonl"
    ),
}  # fmt: skip
