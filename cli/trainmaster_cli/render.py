"""`trainmaster render`: the objects that the operator would create for a job's first attempt, as YAML."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import yaml
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.spec.tracking import Mlflow, Tracker
from trainmaster_operator import manifests
from trainmaster_operator.policy.settings import Settings

from .errors import UserError

# Known in the cluster only. In angle brackets, so that they can't be applied by mistake: no valid name, address or key
# looks like this, and the API server rejects them.
_OPERATOR = Settings(
    image="<operator's trainer image>",
    storage_uri="<operator's storage>",
    default_tracking=(Tracker(mlflow=Mlflow.model_construct(uri="<operator's MLflow server>")),),
    progress_url="<operator's progress address>",
    progress_ca="<operator's CA>",
)
_UID = "<uid of the TrainingJob>"
_RAY_KEY = "<random key>"
_FIRST_ATTEMPT = 1


def render_job(job: TrainingJob, namespace: str | None, image: str | None) -> str:
    """Return every object of the job's first attempt: Secret, Service, head, workers.

    Args:
        job: a valid job.
        namespace: instead of the job's own.
        image: the operator's default image, for a job that names none.
    """
    update = {"uid": _UID, "namespace": namespace or job.metadata.namespace}
    placed = job.model_copy(update={"metadata": job.metadata.model_copy(update=update), "status": None})
    settings = replace(_OPERATOR, image=image) if image else _OPERATOR
    resolved, problems = manifests.resolve(placed.wire(), settings)
    if resolved is None:
        raise UserError("; ".join(str(problem) for problem in problems))
    objects = [
        manifests.secret(resolved, settings, _RAY_KEY),
        manifests.heads_service(resolved.metadata.namespace),
        manifests.head(resolved, _FIRST_ATTEMPT),
        *(manifests.worker(resolved, _FIRST_ATTEMPT, index) for index in range(resolved.spec.cluster.workers.count)),
    ]
    return "".join(f"---\n{_dump(found)}" for found in objects)


def _dump(value: dict[str, Any]) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=160, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Without anchors: what two objects share is written in both."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
