"""The job of a trial or of a winner, from its document."""

from __future__ import annotations

import hashlib
from typing import Any

from trainmaster_api.spec.code import Code
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.validation.problem import Problem
from trainmaster_api.validation.validate import validate


def job_of(document: dict[str, Any]) -> tuple[TrainingJob | None, list[Problem]]:
    """Validate a document that was made of a valid job.

    The archive of `code.inline` isn't in a pod's job: it lies beside it. So its checksum isn't that of what is there,
    and isn't checked; it was when the job was applied, and again when the code was unpacked.

    Args:
        document: With the values of a trial.

    Returns:
        The job, or None, and all problems.
    """
    training = document["spec"]["training"]
    inline = (training.get("code") or {}).get("inline")
    if inline is None or inline["data"]:
        return validate(document)
    code = {**training["code"], "inline": {**inline, "sha256": hashlib.sha256(b"").hexdigest()}}
    job, problems = validate({**document, "spec": {**document["spec"], "training": {**training, "code": code}}})
    if job is None:
        return None, problems
    changed = job.spec.training.model_copy(update={"code": Code.model_validate(training["code"])})
    return job.model_copy(update={"spec": job.spec.model_copy(update={"training": changed})}), problems
