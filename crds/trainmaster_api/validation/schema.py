"""Structural schema of the TrainingJob, made from the pydantic models.

Kubernetes has neither `$ref` nor unions: references are put in place, an optional field is one that may be absent, and
the variants of a discriminated union become one object with the fields of all of them. What a merged object can't say
(which fields belong to which variant) is returned as `Union`s, from which `variants.py` makes rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from trainmaster_api.spec import part
from trainmaster_api.spec.job import TrainingJob

Schema = dict[str, Any]
FROM_NAME = next(iter(part.FROM_NAME))

# JSON Schema keywords that mean the same in a structural schema; the others are translated or left out.
_SAME = (
    "type", "description", "enum", "pattern", "format", "minLength", "maxLength", "minItems", "maxItems",
    "minProperties", "maxProperties", "minimum", "maximum", "examples",
    "x-exactly-one-of", "x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
)  # fmt: skip


@dataclass(frozen=True)
class Union:
    """A discriminated union that was merged into one object.

    Attributes:
        path: dotted path of the merged object.
        tag: name of the field that says which variant it is.
        fields: for each variant, the dotted paths (below `path`) that not every variant has but this one does.
        required: for each variant, those of `fields` that it can't do without.
    """

    path: str
    tag: str
    fields: Mapping[str, tuple[str, ...]]
    required: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Structural:
    """The schema and what was lost in it."""

    schema: Schema
    unions: tuple[Union, ...]

    def union_at(self, path: str) -> Union | None:
        """The union that was merged at a dotted path."""
        return next((union for union in self.unions if union.path == path), None)


@lru_cache(maxsize=1)
def structural() -> Structural:
    """The structural schema of a TrainingJob (spec with defaults, status without) and its merged unions."""
    source = TrainingJob.model_json_schema()
    builder = _Builder(source["$defs"])
    spec = builder.convert(source["properties"]["spec"], "spec")
    status = builder.convert({"$ref": "#/$defs/Status"}, "status")
    _drop_defaults(status)
    schema = {
        "type": "object",
        "description": TrainingJob.__doc__,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this kind."},
            "kind": {"type": "string", "description": "TrainingJob."},
            # named here only so that a rule's fieldPath can point at it
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": spec,
            "status": status,
        },
    }
    return Structural(schema, tuple(builder.unions))


def node_at(schema: Schema, path: str) -> Schema | None:
    """The part of a schema at a path such as `spec.training.data.features[0]`; None where there is no such part."""
    node: Schema | None = schema
    for step in path.replace("[", ".[").split(".") if path else ():
        if node is None:
            return None
        node = node.get("items") if step.startswith("[") else _child(node, step)
    return node


def apply_defaults(value: Any, schema: Schema) -> Any:
    """A copy of `value` with the schema's defaults filled in and nulls dropped where there is a default.

    It does what the API server does before it evaluates a rule; values of a wrong type are left as they are.
    """
    if isinstance(value, dict) and "properties" in schema:
        properties = schema["properties"]
        filled = {
            key: apply_defaults(item, properties.get(key, {}))
            for key, item in value.items()
            if not (item is None and "default" in properties.get(key, {}))
        }
        for key, child in properties.items():
            if "default" in child and key not in filled:
                filled[key] = apply_defaults(json.loads(json.dumps(child["default"])), child)
        return filled
    if isinstance(value, list) and "items" in schema:
        return [apply_defaults(item, schema["items"]) for item in value]
    return value


def _child(node: Schema, name: str) -> Schema | None:
    found = node.get("properties", {}).get(name)
    if found is None and isinstance(node.get("additionalProperties"), dict):
        return dict(node["additionalProperties"])
    return found if found is None else dict(found)


def _drop_defaults(schema: Schema) -> None:
    schema.pop("default", None)
    for child in schema.get("properties", {}).values():
        _drop_defaults(child)
    if "items" in schema:
        _drop_defaults(schema["items"])


class _Builder:
    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self.definitions = definitions
        self.unions: list[Union] = []

    def convert(self, source: Schema, path: str) -> Schema:
        source = self._resolve(source)
        node = {key: source[key] for key in _SAME if key in source}
        if "const" in source:
            node["enum"] = [source["const"]]
        _bounds(source, node)
        self._children(source, node, path)
        if "description" in node:
            node["description"] = " ".join(node["description"].split())
        if source.get("default") is not None and FROM_NAME not in source:
            node["default"] = self._default(source, node)
        return node

    def _resolve(self, source: Schema) -> Schema:
        """Without `$ref` and without `| None`; what stands beside a reference wins over what it refers to."""
        if "anyOf" in source:
            (only,) = [option for option in source["anyOf"] if option.get("type") != "null"]
            source = {**self._resolve(only), **{key: value for key, value in source.items() if key != "anyOf"}}
        if "$ref" in source:
            target = self.definitions[source["$ref"].rpartition("/")[2]]
            source = {**self._resolve(target), **{key: value for key, value in source.items() if key != "$ref"}}
        return source

    def _children(self, source: Schema, node: Schema, path: str) -> None:
        if "items" in source:
            node["items"] = self.convert(source["items"], f"{path}[]")
        if "properties" in source:
            node["properties"] = {
                name: self.convert(child, f"{path}.{name}") for name, child in source["properties"].items()
            }
            required = [name for name in source.get("required", ()) if FROM_NAME not in source["properties"][name]]
            if required:
                node["required"] = required
        extra = source.get("additionalProperties")
        if isinstance(extra, dict):
            node["additionalProperties"] = self.convert(extra, f"{path}.*")
        elif extra is True:
            node["x-kubernetes-preserve-unknown-fields"] = True

    def _default(self, source: Schema, node: Schema) -> Any:
        """An object's default is `{}`, or its name: the defaults inside it do the rest."""
        if node["type"] != "object":
            return source["default"]
        named = source.get("x-exactly-one-of", ())
        return {key: value for key, value in source["default"].items() if key in named and value is not None}


def _bounds(source: Schema, node: Schema) -> None:
    """OpenAPI 3.0 has `exclusiveMinimum` as a flag beside `minimum`."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in source:
            node[bound], node[exclusive] = source[exclusive], True
