"""`spec.cluster`: where it runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from trainmaster_api.types import Model, Quantity


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
