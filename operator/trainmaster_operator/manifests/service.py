"""The job's headless Service: a name for the head of whatever attempt lives."""

from __future__ import annotations

from typing import Any

from trainmaster_api import names
from trainmaster_api.spec.job import TrainingJob

from .meta import metadata


def service(job: TrainingJob) -> dict[str, Any]:
    """The Service `<job>-head`; the workers' address of an attempt's head lies below its name."""
    name = job.metadata.name
    ports = {"gcs": names.PORT_GCS, "dashboard": names.PORT_DASHBOARD, "metrics": names.PORT_METRICS}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, names.head_service(name)),
        "spec": {
            "clusterIP": "None",
            # workers must find the head before it is ready: it is ready only when they have joined
            "publishNotReadyAddresses": True,
            "selector": {names.LABEL_JOB: name, names.LABEL_ROLE: names.ROLE_HEAD},
            "ports": [{"name": key, "port": port, "targetPort": port} for key, port in ports.items()],
        },
    }
