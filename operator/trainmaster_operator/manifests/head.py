"""The head pod: Ray's head and the driver."""

from __future__ import annotations

from typing import Any

from trainmaster_api import names
from trainmaster_api.spec.cluster import PodTemplateSpec
from trainmaster_api.spec.job import TrainingJob

from trainmaster_operator.policy.suspend import AFTER_SAVE_SECONDS

from .pod import Shape, pod


def head(job: TrainingJob, attempt: int) -> dict[str, Any]:
    """Return the head pod of an attempt. `job` is resolved; `attempt` counts from 1."""
    name, spec = job.metadata.name, job.spec.cluster.head
    shape = Shape(
        name=names.head_pod(name, attempt),
        role=names.ROLE_HEAD,
        attempt=attempt,
        index=None,
        cpus=spec.cpus,
        cpu_limit=spec.cpu_limit,
        memory=spec.memory,
        gpus=0,
        grace=job.spec.run.stop_grace_seconds + AFTER_SAVE_SECONDS,
        template=spec.template or PodTemplateSpec(),
    )
    manifest = pod(job, shape)
    # with both, a pod selected by a headless Service has a DNS name of its own: workers find the head of their attempt
    manifest["spec"]["hostname"] = names.head_pod(name, attempt)
    manifest["spec"]["subdomain"] = names.HEADS_SERVICE
    return manifest
