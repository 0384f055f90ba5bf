"""`spec.cluster`: the pods of the job."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from trainmaster_api.types import Model, Quantity


class PodTemplateMetadata(Model):
    """Metadata that is added to the pods."""

    labels: Annotated[dict[str, str], Field(max_length=64)] = {}
    """Additional labels; those of trainmaster.dev are reserved."""
    annotations: Annotated[dict[str, str], Field(max_length=64)] = {}
    """Additional annotations; those of trainmaster.dev are reserved."""


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
    """PodSpec, as in a Pod."""


class Workers(Model):
    """The pods that train."""

    count: Annotated[int, Field(ge=1, le=4096)] = 1
    """Number of workers, each one pod and one Ray Train worker. On a laptop: number of processes."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """Number of GPUs of each worker."""
    cpus: Quantity = "1"
    """CPU request of each worker. Without cpuLimit, a worker may use idle CPU of its node in addition."""
    cpu_limit: Quantity | None = None
    """CPU limit of each worker, at least cpus. If unset, there is no limit. Required by a ResourceQuota on
    limits.cpu."""
    memory: Quantity = "2Gi"
    """Memory request and limit of each worker."""
    template: PodTemplateSpec | None = None
    """PodTemplateSpec for everything else: placement, volumes, environment, sidecars."""


class Head(Model):
    """The pod that runs the Ray head and the driver; it does not train."""

    cpus: Quantity = "1"
    """CPU request. Without cpuLimit, the head may use idle CPU of its node in addition."""
    cpu_limit: Quantity | None = None
    """CPU limit, at least cpus. If unset, there is no limit. Required by a ResourceQuota on limits.cpu."""
    memory: Quantity = "2Gi"
    """Memory request and limit; the Ray head with the driver needs about 1.6 GB."""
    template: PodTemplateSpec | None = None
    """PodTemplateSpec for everything else: placement, volumes, environment, sidecars."""


class Cluster(Model):
    """Pods of the job. On a laptop only workers.count is used."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Trainer image. Default: the operator's."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Image pull policy, as in a Container."""
    workers: Workers = Workers()
    """The pods that train."""
    head: Head = Head()
    """The pod that runs the Ray head and the driver."""
