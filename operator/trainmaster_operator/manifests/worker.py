"""A worker pod: one Ray node with one training process."""

from __future__ import annotations

from typing import Any

from trainmaster_api import names
from trainmaster_api.spec.cluster import PodTemplateSpec
from trainmaster_api.spec.job import TrainingJob

from .pod import Shape, pod


def worker(job: TrainingJob, attempt: int, index: int) -> dict[str, Any]:
    """Return worker `index` (from 0) of an attempt. `job` is resolved; `attempt` counts from 1."""
    name, spec = job.metadata.name, job.spec.cluster.workers
    shape = Shape(
        name=names.worker_pod(name, attempt, index),
        role=names.ROLE_WORKER,
        attempt=attempt,
        index=index,
        cpus=spec.cpus,
        cpu_limit=spec.cpu_limit,
        memory=spec.memory,
        gpus=spec.gpus,
        # a drained worker waits for the save of the step that is running
        grace=job.spec.run.stop_grace_seconds,
        template=spec.template or PodTemplateSpec(),
    )
    return pod(job, shape)
