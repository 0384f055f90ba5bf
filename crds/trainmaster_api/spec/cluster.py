"""`spec.cluster`: where it runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from trainmaster_api.types import Model, Quantity


class PodTemplateMetadata(Model):
    """Metadata that is added to the pods."""

    labels: Annotated[dict[str, str], Field(max_length=64)] = {}
    """Extra labels; those of trainmaster.dev are reserved."""
    annotations: Annotated[dict[str, str], Field(max_length=64)] = {}
    """Extra annotations; those of trainmaster.dev are reserved."""


class PodTemplateSpec(Model):
    """A PodTemplateSpec (core/v1) that is merged under the operator's own pod.

    `spec` is any PodSpec. The container named `trainer` is merged into the training container (env, envFrom,
    volumeMounts, resources of other kinds than cpu, memory and GPUs); other containers, init containers and volumes
    are added, the containers unprivileged where they are silent. A field that would break the job or its isolation is
    refused with its path.
    """

    metadata: PodTemplateMetadata = PodTemplateMetadata()
    """Labels and annotations."""
    spec: dict[str, Any] = {}
    """A PodSpec, as in a Pod."""


class Workers(Model):
    """The pods that train."""

    count: Annotated[int, Field(ge=1, le=4096)] = 1
    """Number of workers; one Ray Train worker, one pod each. On a laptop: processes."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs of each worker."""
    cpus: Quantity = "1"
    """CPU request of each worker; without cpuLimit it may use more where there is more."""
    cpu_limit: Quantity | None = None
    """CPU limit of each worker, at least cpus; absent: no limit. A ResourceQuota on limits.cpu requires one."""
    memory: Quantity = "2Gi"
    """Memory of each worker, request and limit."""
    template: PodTemplateSpec | None = None
    """PodTemplateSpec for everything else: placement, volumes, environment, sidecars."""


class Head(Model):
    """The pod that runs the Ray head and the driver; it trains nothing."""

    cpus: Quantity = "1"
    """CPU request; without cpuLimit it may use more where there is more."""
    cpu_limit: Quantity | None = None
    """CPU limit, at least cpus; absent: no limit. A ResourceQuota on limits.cpu requires one."""
    memory: Quantity = "2Gi"
    """Memory, request and limit; Ray's head with one driver needs about 1.6 GB."""
    template: PodTemplateSpec | None = None
    """PodTemplateSpec for everything else: placement, volumes, environment, sidecars."""


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
