"""Metadata that every child carries."""

from __future__ import annotations

import json
from typing import Any

from trainmaster_api import API_VERSION, KIND
from trainmaster_api.names import labels
from trainmaster_api.trainingjob import TrainingJob

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


def resolved(job: TrainingJob) -> str:
    """The job as the trainer reads it, JSON: of the metadata only what makes its identity, and no status."""
    wire = job.wire()
    meta = {key: wire["metadata"][key] for key in ("name", "namespace", "uid")}
    found = {"apiVersion": wire["apiVersion"], "kind": wire["kind"], "metadata": meta, "spec": wire["spec"]}
    return json.dumps(found, separators=(",", ":"))
