"""Metadata that every child carries."""

from __future__ import annotations

import json
from typing import Any

from trainmaster_api import API_VERSION, KIND
from trainmaster_api.names import labels
from trainmaster_api.spec.job import TrainingJob

Object = dict[str, Any]


def metadata(
    job: TrainingJob, name: str, attempt: int | None = None, role: str | None = None, index: int | None = None
) -> Object:
    """Name, labels and the controller reference that lets the garbage collector delete the child with its job."""
    owner = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": job.metadata.name,
        "uid": job.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": labels(job.metadata.name, attempt, role, index),
        "ownerReferences": [owner],
    }


def resolved(job: TrainingJob, *, whole: bool) -> str:
    """Return the job as the trainer reads it, as JSON: only the identifying metadata, no status, no code.

    All annotations of a pod together may have 256 KiB, so the archive of `code.inline` is in the run's Secret.

    Args:
        job: Resolved job.
        whole: With every default written out, as the head keeps it in storage. A worker's launcher reads only the
            size of its pod: without the defaults its pod is smaller, and there are many of them.
    """
    meta = {"name": job.metadata.name, "namespace": job.metadata.namespace, "uid": job.metadata.uid}
    spec = job.spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=not whole)
    inline = (spec["training"].get("code") or {}).get("inline")
    if inline is not None:
        inline["data"] = ""
    found = {"apiVersion": job.api_version, "kind": job.kind, "metadata": meta, "spec": spec}
    return json.dumps(found, separators=(",", ":"))
