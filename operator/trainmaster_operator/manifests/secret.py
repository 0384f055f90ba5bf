"""The job's Secret: the key of its Ray clusters, where progress goes, the code that the job carries, and its commit."""

from __future__ import annotations

from typing import Any

from trainmaster_api import names
from trainmaster_api.spec.job import TrainingJob

from trainmaster_operator.policy.settings import Settings

from .meta import metadata


def secret(job: TrainingJob, settings: Settings, ray_key: str) -> dict[str, Any]:
    """Return the Secret `<job>-run`.

    Args:
        job: Resolved job.
        settings: For the progress address and its CA.
        ray_key: Random text, at least 128 bits; each attempt's Ray token is derived from it.
    """
    data = {
        names.KEY_RAY: ray_key,
        names.KEY_OWNER: job.metadata.uid,
        names.KEY_PROGRESS_URL: settings.progress_url,
        names.KEY_PROGRESS_CA: settings.progress_ca,
    }
    git = (job.metadata.annotations or {}).get(names.ANNOTATION_GIT, "")
    if git and len(git) <= names.MOST_GIT_STATE:
        data[names.KEY_GIT] = git
    code = job.spec.training.code
    archive = {names.KEY_CODE: code.inline.data} if code is not None and code.inline is not None else {}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(job, names.run_secret(job.metadata.name)),
        "type": "Opaque",
        "stringData": data,
        **({"data": archive} if archive else {}),  # base64 already
    }
