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
    """Reasons of conditions that are not failures; a failure's reason is its FailureClass."""

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
    WAITING_FOR_QUOTA = "WaitingForQuota"
    WAITING_FOR_ADMISSION = "WaitingForAdmission"
    WAITING_FOR_DEPENDENCY = "WaitingForDependency"
    WAITING_FOR_VOLUMES = "WaitingForVolumes"
    NAMESPACE_TERMINATING = "NamespaceTerminating"
    REPLACING_WORKER = "ReplacingWorker"
    BACKING_OFF = "BackingOff"
    STARTING = "Starting"
    TRAINING = "Training"
    NO_RECENT_STEP = "NoRecentStep"
    RECOVERING = "Recovering"
    STOPPED = "Stopped"
    DURATION_EXTENDED = "DurationExtended"
    TRIALS_EXTENDED = "TrialsExtended"
    HOURS_EXTENDED = "HoursExtended"
    NO_CHECKPOINT = "NoCheckpoint"
    CHECKPOINT_COMMITTED = "CheckpointCommitted"
    TRAINING_COMPLETE = "TrainingComplete"
    NAME_CONFLICT = "NameConflict"
    CHECKPOINT_NOT_READ = "CheckpointNotRead"
    HEALTHY = "Healthy"


CONDITION_MEANINGS: dict[ConditionType, str] = {
    ConditionType.ACCEPTED: "the spec is valid; if False, the message lists every problem",
    ConditionType.SUSPENDED: "the job is stopped at a checkpoint, or about to be, because run.suspend is true",
    ConditionType.PROVISIONED: "all pods of the current attempt exist and are Ready",
    ConditionType.RUNNING: "training is making progress; if no step has been completed recently, the "
    "reason is NoRecentStep",
    ConditionType.CHECKPOINTED: "a committed checkpoint exists, from which the job would resume",
    ConditionType.COMPLETE: (
        "the model is trained, evaluated and stored; final, unless training.loop.duration is raised afterwards"
    ),
    ConditionType.FAILED: "the job has failed permanently; the reason is a failure class",
    ConditionType.DEGRADED: "something is wrong that doesn't end the job; the reason says what",
}

REASON_MEANINGS: dict[Reason, str] = {
    Reason.SPEC_VALID: "the spec is valid",
    Reason.INVALID_SPEC: "the spec is invalid; the message lists each problem with its path and the accepted values",
    Reason.NOT_SUSPENDED: "run.suspend is false",
    Reason.SUSPENDING: "a checkpoint is being saved before the pods are deleted",
    Reason.SUSPENDED: "the pods have been deleted; the message has the step that training will resume from",
    Reason.RESUMED: "run.suspend was set back to false",
    Reason.PODS_CREATED: "all pods of the attempt have been created, but not all are Ready",
    Reason.PODS_READY: "all pods of the attempt are Ready",
    Reason.PODS_REMOVED: "the attempt has ended and its pods have been deleted",
    Reason.WAITING_FOR_OLD_PODS: "the next attempt starts once all pods of the previous one have terminated",
    Reason.WAITING_FOR_QUOTA: (
        "a ResourceQuota has no room for all pods of the attempt; pods that were created are released, and creation "
        "is retried"
    ),
    Reason.WAITING_FOR_ADMISSION: (
        "the API server or an admission webhook can't admit pods at the moment; creation is retried"
    ),
    Reason.WAITING_FOR_DEPENDENCY: (
        "an object that the pods refer to does not exist yet (ServiceAccount, PriorityClass, RuntimeClass); creation "
        "is retried"
    ),
    Reason.WAITING_FOR_VOLUMES: (
        "a pod is scheduled, but its volumes or its network are not set up; the message lists what it mounts"
    ),
    Reason.NAMESPACE_TERMINATING: "the namespace is being deleted, so no pods can be created in it",
    Reason.REPLACING_WORKER: "a worker pod was lost and is being recreated within the same attempt",
    Reason.BACKING_OFF: "the next attempt is delayed; the delay doubles with each failure without a new checkpoint",
    Reason.STARTING: "pods are Ready; the framework, the data and the model are being loaded",
    Reason.TRAINING: "training is making progress",
    Reason.NO_RECENT_STEP: (
        "no optimizer step has been reported for 15 s or more; the message has the time since when and, "
        "if known, the cause"
    ),
    Reason.RECOVERING: "a worker was lost; training resumes from the newest checkpoint once it has been replaced",
    Reason.STOPPED: "no attempt is running",
    Reason.DURATION_EXTENDED: "training.loop.duration was raised; training continues from the newest checkpoint",
    Reason.TRIALS_EXTENDED: "the number of trials of a search was raised; it continues with more trials",
    Reason.HOURS_EXTENDED: "the hours of a search were raised; it continues",
    Reason.NO_CHECKPOINT: "no checkpoint has been saved yet; a restart would begin at step 0",
    Reason.CHECKPOINT_COMMITTED: "the message has the newest committed checkpoint",
    Reason.TRAINING_COMPLETE: "the run reached its end; the message has the test metrics",
    Reason.NAME_CONFLICT: (
        "a required object name is already taken by an object this TrainingJob does not own; it is left unmodified"
    ),
    Reason.CHECKPOINT_NOT_READ: (
        "your program had checkpoint files and read none of them: it has begun again from its start"
    ),
    Reason.HEALTHY: "reconciliation works",
}


class Retry(StrEnum):
    """What a failure class costs."""

    NEVER = "never"
    """Retrying would fail the same way: the job fails at once."""
    COUNTED = "counted"
    """Another attempt, which counts against run.retries.max."""
    FREE = "free"
    """Caused by the infrastructure: another attempt after a back-off, not counted."""


class FailureClass(StrEnum):
    """Why an attempt ended; the reason of the `Failed` condition and of an entry in status.attempts."""

    USER_CODE_ERROR = "UserCodeError"
    CODE_ERROR = "CodeError"
    CODE_UNAVAILABLE = "CodeUnavailable"
    INVALID_CONFIGURATION = "InvalidConfiguration"
    DATA_ERROR = "DataError"
    DATA_CHANGED = "DataChanged"
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
    NO_PROGRESS = "NoProgress"
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
        Retry.NEVER, "the training code raised an exception", "fix the code; status.attempts has the last log lines"
    ),
    FailureClass.CODE_ERROR: FailureRule(
        Retry.NEVER, "the code didn't arrive as the job says: another checksum, a damaged or harmful archive, no such "
        "folder, or packages that can't be installed",
        "correct spec.training.code as the message says, or submit again: trainmaster submit FILE --replace",
    ),
    FailureClass.CODE_UNAVAILABLE: FailureRule(
        Retry.COUNTED, "a git repository or an index of packages did not respond",
        "check the address that the message names, and the way from the pods to it",
    ),
    FailureClass.INVALID_CONFIGURATION: FailureRule(
        Retry.NEVER, "the spec can't be carried out", "change the field that the message names"
    ),
    FailureClass.DATA_ERROR: FailureRule(
        Retry.NEVER, "the data can't be read or does not match the spec", "fix what the message names"
    ),
    FailureClass.DATA_CHANGED: FailureRule(
        Retry.NEVER, "the data is not the data that the run began with; nothing was trained on it",
        "restore the data, or train on the new data as a new run: trainmaster run --fresh, or another metadata.name",
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
        Retry.COUNTED, "storage was unreachable for minutes", "check storage.endpoint and the storage server"
    ),
    FailureClass.STORAGE_DENIED: FailureRule(
        Retry.NEVER, "storage denied access: no such bucket, wrong credentials, or no permission",
        "check storage.uri and the keys of the Secret storage.credentialsSecret",
    ),
    FailureClass.WORKER_LOST: FailureRule(
        Retry.COUNTED, "a worker process or pod terminated unexpectedly", "check the worker's log"
    ),
    FailureClass.HEAD_LOST: FailureRule(
        Retry.COUNTED, "the head pod ended without reporting a result", "check the head's log"
    ),
    FailureClass.NODE_LOST: FailureRule(Retry.FREE, "a node became unreachable", "nothing: the job restarts elsewhere"),
    FailureClass.PREEMPTED: FailureRule(
        Retry.FREE, "a pod was evicted, preempted or drained", "nothing: the job restarts as soon as there is room"
    ),
    FailureClass.IMAGE_PULL: FailureRule(
        Retry.NEVER, "the image can't be pulled", "check cluster.image and template.spec.imagePullSecrets"
    ),
    FailureClass.UNSCHEDULABLE: FailureRule(
        Retry.NEVER, "no node fits a pod", "lower cpus, memory or gpus, or add nodes"
    ),
    FailureClass.POD_REJECTED: FailureRule(
        Retry.NEVER, "the API server rejected a pod; a retry won't help", "change the field that the message names"
    ),
    FailureClass.STALLED: FailureRule(
        Retry.COUNTED, "no step was completed for run.stallSeconds", "look for a deadlock, or raise run.stallSeconds"
    ),
    FailureClass.NO_PROGRESS: FailureRule(
        Retry.NEVER, "your program was started again several times in a row and reached no new step",
        "look at the last lines; a program resumes only if it reads its own checkpoints",
    ),
    FailureClass.GPU_FAULT: FailureRule(Retry.FREE, "a GPU or NCCL fault", "drain the node named in the message"),
    FailureClass.DEADLINE_EXCEEDED: FailureRule(
        Retry.NEVER, "run.activeDeadlineSeconds or run.pendingDeadlineSeconds exceeded", "raise the deadline"
    ),
    FailureClass.CANCELLED: FailureRule(Retry.NEVER, "stopped by the user", "run it again to resume"),
    FailureClass.INTERNAL_ERROR: FailureRule(
        Retry.COUNTED, "a bug in Trainmaster or Ray", "report it, with the run's events.jsonl attached"
    ),
}  # fmt: skip
