"""The job as it will run: validated, and with the operator's defaults for unset fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainmaster_api.spec.job import Spec, TrainingJob
from trainmaster_api.spec.storage import Storage
from trainmaster_api.spec.tracking import Tracker, merge
from trainmaster_api.validation.pod_template import host_path_findings
from trainmaster_api.validation.problem import shown
from trainmaster_api.validation.validate import Problem, validate

from trainmaster_operator.policy.settings import Settings


def resolve(raw: dict[str, Any], settings: Settings) -> tuple[TrainingJob | None, tuple[Problem, ...]]:
    """Validate a TrainingJob and fill in the operator's defaults.

    Args:
        raw: The TrainingJob as YAML holds it or the API serves it.
        settings: The operator's defaults.

    Returns:
        The job with image, storage and trackers set, or None, and every problem at once. Takes about half a
        millisecond: keep the result by UID and generation.
    """
    job, problems = validate(raw)
    problems = [*problems, *settings_problems(raw, settings)]
    if job is None or problems:
        return None, tuple(problems)
    spec = job.spec
    image = spec.cluster.image or settings.image
    storage = _storage(spec.storage, settings)
    found = [] if image else [_missing("spec.cluster.image", "trainer image", "--image")]
    if storage is None:
        found.append(_missing("spec.storage.uri", "storage", "--storage-uri"))
    tracking = merge(spec.tracking, settings.default_tracking)
    found += _tracking_problems(tracking)
    if storage is None or found:
        return None, tuple(found)
    update = {
        "cluster": spec.cluster.model_copy(update={"image": image}),
        "storage": storage,
        "tracking": tracking,
    }
    resolved: Spec = spec.model_copy(update=update)
    return job.model_copy(update={"spec": resolved}), ()


def settings_problems(raw: Any, settings: Settings) -> list[Problem]:
    """Return what a laptop or another operator may allow and this one doesn't: for the webhook too."""
    if not isinstance(raw, dict):
        return []
    found = _laptop_only(raw)
    return found if settings.allow_host_path else [*found, *(Problem(*each) for each in host_path_findings(raw))]


def _laptop_only(raw: dict[str, Any]) -> list[Problem]:
    """Return a problem for code that is a folder on a laptop."""
    found: Any = raw
    for key in ("spec", "training", "code", "path"):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, str):
        return []
    words = "is a folder on your disk, which the cluster can't read"
    return [
        Problem("spec.training.code.path", words, shown(found), hint="`trainmaster submit FILE` packs and sends it")
    ]


def _missing(path: str, what: str, flag: str) -> Problem:
    return Problem(
        path, f"is required, because this operator has no default {what}", hint=f"set it, or start it with {flag}"
    )


def _storage(storage: Storage, settings: Settings) -> Storage | None:
    """Return the job's own storage unchanged, or the default: a mix of both would fit no server."""
    if storage.uri is not None:
        return storage
    if settings.storage_uri is None:
        return None
    update = {
        "uri": settings.storage_uri,
        "endpoint": storage.endpoint or settings.storage_endpoint,
        "credentials_secret": storage.credentials_secret or settings.storage_credentials_secret,
        "region": settings.storage_region or storage.region,
    }
    return storage.model_copy(update=update)


def _tracking_problems(trackers: Sequence[Tracker]) -> list[Problem]:
    """Yield settings that a tracker requires in a cluster and that neither the job nor the operator sets."""
    return [
        _missing(f"spec.tracking[{index}].{tracker.kind}.{field}", f"{tracker.kind} {field}", "--default-tracking")
        for index, tracker in enumerate(trackers)
        for field in getattr(tracker.settings, "required_in_cluster", ())
        if getattr(tracker.settings, field) is None
    ]
