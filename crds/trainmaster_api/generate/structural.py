"""Structural schema of the whole TrainingJob: the spec with its defaults, the status without."""

from __future__ import annotations

import copy
from functools import lru_cache

from trainmaster_api.spec.job import Spec, TrainingJob
from trainmaster_api.status import Status
from trainmaster_api.validation.schema import Schema, schema_of


@lru_cache(maxsize=1)
def structural() -> Schema:
    """Return the schema. It is shared: copy it before you change it."""
    status = copy.deepcopy(schema_of(Status))
    _drop_defaults(status)
    described = TrainingJob.model_json_schema()["properties"]["spec"]
    return {
        "type": "object",
        "description": TrainingJob.__doc__,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this kind."},
            "kind": {"type": "string", "description": "TrainingJob."},
            # named here only so that a rule's fieldPath can point at it
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": {**copy.deepcopy(schema_of(Spec)), "description": described.get("description", Spec.__doc__)},
            "status": status,
        },
    }


def _drop_defaults(schema: Schema) -> None:
    schema.pop("default", None)
    for child in schema.get("properties", {}).values():
        _drop_defaults(child)
    if "items" in schema:
        _drop_defaults(schema["items"])
