"""The rest of the spec: where results go (`storage`, `checkpoint`, `tracking`) and where it runs (`cluster`, `run`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from trainmaster_api.types import Interval, Metric, Model, Quantity


class Mlflow(Model):
    """Record the run on an MLflow tracking server. A dead server costs a warning, never the run."""

    uri: (
        Annotated[
            str,
            Field(pattern=r"^(https?://.+|sqlite:///.+|file:.+)$", max_length=1024, examples=["http://mlflow:5000"]),
        ]
        | None
    ) = None
    """Tracking server; default: the operator's (in a cluster) or a local sqlite file (on a laptop)."""
    experiment: Annotated[str, Field(min_length=1, max_length=250)] | None = None
    """Name of the experiment; default: `<namespace>/<name>`."""


class Tracking(Model):
    """Views of the run. metrics.jsonl in the run's storage is always written and is the truth."""

    mlflow: Mlflow | None = None
    """MLflow; `mlflow: {}` takes the default server."""


class Storage(Model):
    """Where checkpoints, metrics and the model go. Deleting a job never deletes its storage."""

    uri: (
        Annotated[
            str,
            Field(
                pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?|/.*|file:///.*)$",
                max_length=1024,
                examples=["s3://bucket/prefix", "/mnt/shared/runs"],
            ),
        ]
        | None
    ) = None
    """`s3://bucket/prefix`, or an absolute path of a shared file system. Default: the operator's, or ./trainmaster-runs
    on a laptop."""
    endpoint: (
        Annotated[str, Field(pattern=r"^https?://[^/]+/?$", max_length=253, examples=["http://minio:9000"])] | None
    ) = None
    """S3 endpoint for MinIO and other S3-compatible servers."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=63, examples=["eu-central-1"])] = "us-east-1"
    """S3 region."""
    credentials_secret: (
        Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253, examples=["minio"])] | None
    ) = None
    """Secret in the job's namespace with keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""


class Checkpoint(Model):
    """When state is saved and how much of it is kept."""

    every: Interval = "auto"
    """`auto` (chosen from the measured cost of a save), or `1ep`, `500step`, `10m`."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 3
    """Newest checkpoints that are kept."""
    keep_best: Annotated[int, Field(ge=0, le=100)] = 1
    """Best checkpoints that are kept besides."""
    metric: Metric = "val/loss"
    """Validation metric that says which is best; its better direction follows from its name."""


class PodTemplate(Model):
    """What a platform team sets on the pods; everything else of the pod belongs to the operator."""

    labels: Annotated[dict[str, str], Field(max_length=64)] | None = None
    """Extra labels."""
    annotations: Annotated[dict[str, str], Field(max_length=64)] | None = None
    """Extra annotations."""
    node_selector: Annotated[dict[str, str], Field(max_length=64)] | None = None
    """Nodes that the pod may run on."""
    tolerations: Annotated[list[dict[str, Any]], Field(max_length=64)] | None = None
    """Taints that the pod tolerates, as in a Pod."""
    affinity: dict[str, Any] | None = None
    """Affinity, as in a Pod."""
    topology_spread_constraints: Annotated[list[dict[str, Any]], Field(max_length=16)] | None = None
    """Spread over nodes and zones, as in a Pod."""
    service_account_name: Annotated[str, Field(max_length=253)] | None = None
    """Service account; its token is not mounted but for the progress audience."""
    priority_class_name: Annotated[str, Field(max_length=253)] | None = None
    """Priority class."""
    runtime_class_name: Annotated[str, Field(max_length=253)] | None = None
    """Runtime class."""
    scheduler_name: Annotated[str, Field(max_length=253)] | None = None
    """Scheduler."""
    image_pull_secrets: Annotated[list[str], Field(max_length=16)] | None = None
    """Names of image pull secrets in the job's namespace."""
    env: Annotated[dict[str, str], Field(max_length=128)] | None = None
    """Extra environment variables."""
    volumes: Annotated[list[dict[str, Any]], Field(max_length=32)] | None = None
    """Extra volumes, as in a Pod."""
    volume_mounts: Annotated[list[dict[str, Any]], Field(max_length=32)] | None = None
    """Where the extra volumes are mounted, as in a Container."""


class Workers(Model):
    """The pods that train."""

    count: Annotated[int, Field(ge=1, le=4096)] = 1
    """Number of workers; one Ray Train worker, one pod each. On a laptop: processes."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs of each worker."""
    cpus: Quantity = "1"
    """CPU that each worker is sure of (its request); it may use more where there is more."""
    memory: Quantity = "2Gi"
    """Memory of each worker, request and limit."""
    template: PodTemplate | None = None
    """Placement and other pod settings."""


class Head(Model):
    """The pod that runs the Ray head and the driver; it trains nothing."""

    cpus: Quantity = "1"
    """CPU that it is sure of (its request); it may use more where there is more."""
    memory: Quantity = "2Gi"
    """Memory, request and limit; Ray's head with one driver needs about 1.6 GB."""
    template: PodTemplate | None = None
    """Placement and other pod settings."""


class Cluster(Model):
    """Where the job runs. On a laptop only the worker count counts."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Trainer image; default: the operator's."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """As in a Container."""
    workers: Workers = Workers()
    """The pods that train."""
    head: Head = Head()
    """The pod that leads."""


class Retries(Model):
    """How often a failed attempt is followed by another."""

    max: Annotated[int, Field(ge=0, le=1000)] = 3
    """Attempts after a counted failure; what the failure classes count is in the list of reasons."""


class Run(Model):
    """How the run is supervised; fields shared with batch/v1 Job mean what they mean there."""

    suspend: bool = False
    """True: save a checkpoint, stop, delete the pods; false again: go on from that step."""
    retries: Retries = Retries()
    """Retry budget."""
    active_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    """Seconds after startTime until the job fails with DeadlineExceeded; a resume starts the clock anew."""
    pending_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    """Seconds that an attempt may wait for all its pods before the job fails; absent: for ever."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    """Seconds after the end until the TrainingJob is deleted; its storage stays."""
    stall_seconds: Annotated[int, Field(ge=10)] = 600
    """Seconds without a new step until an attempt counts as stalled; at least 600 while it loads or packages."""
    stop_grace_seconds: Annotated[int, Field(ge=5, le=3600)] = 60
    """Seconds that a stop (suspend, drain, eviction) may take to save."""
    resume_from: (
        Annotated[
            str,
            Field(
                pattern=r"^(s3://.+|/.+|file:///.+)$",
                max_length=1024,
                examples=["s3://bucket/prefix/default/digits/0f3c9a1b2d4e"],
            ),
        ]
        | None
    ) = None
    """Run to start from: address of another run's directory. Weights, optimizer and position are taken over."""
