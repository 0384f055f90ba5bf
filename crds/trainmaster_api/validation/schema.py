"""Structural schema, as Kubernetes wants it, of a pydantic model.

Kubernetes has neither `$ref` nor unions: references are put in place, and an optional field is one that may be absent.
A default that depends on a part's name stays out of the schema, because the API server doesn't know the name when it
fills in defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from trainmaster_api.spec.part import FROM_NAME
from trainmaster_api.types import Model

Schema = dict[str, Any]

EXACTLY_ONE = "x-exactly-one-of"
NOUN = "x-noun"  # what values are called in messages, where the type doesn't say it
# JSON Schema keywords that mean the same in a structural schema; the others are translated or left out.
_SAME = (
    "type", "description", "enum", "pattern", "format", "minLength", "maxLength", "minItems", "maxItems",
    "minProperties", "maxProperties", "minimum", "maximum", "examples", EXACTLY_ONE, NOUN,
    "x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
)  # fmt: skip
_FROM_NAME = next(iter(FROM_NAME))


@lru_cache(maxsize=256)
def schema_of(model: type[Model]) -> Schema:
    """Return the structural schema of a model. It is shared: copy it before you change it."""
    source = model.model_json_schema()
    return _Builder(source.get("$defs", {})).convert(source)


def node_at(schema: Schema, path: str) -> Schema | None:
    """Return the part of a schema at a path such as `data.features[0]`; None where there is no such part."""
    node: Schema | None = schema
    for step in path.replace("[", ".[").split(".") if path else ():
        if node is None:
            return None
        node = node.get("items") if step.startswith("[") else _child(node, step)
    return node


def _child(node: Schema, name: str) -> Schema | None:
    found = node.get("properties", {}).get(name)
    if found is None and isinstance(node.get("additionalProperties"), dict):
        return dict(node["additionalProperties"])
    return found if found is None else dict(found)


class _Builder:
    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self.definitions = definitions

    def convert(self, source: Schema) -> Schema:
        source = self._resolve(source)
        node = {key: source[key] for key in _SAME if key in source}
        if "const" in source:
            node["enum"] = [source["const"]]
        _bounds(source, node)
        self._children(source, node)
        if "type" not in node and "x-kubernetes-int-or-string" not in node:
            node["x-kubernetes-preserve-unknown-fields"] = True  # anything
        if "description" in node:
            node["description"] = " ".join(node["description"].split())
        if source.get("default") is not None and _FROM_NAME not in source:
            node["default"] = _default(source, node)
        return node

    def _resolve(self, source: Schema) -> Schema:
        """Resolve `$ref` and remove `| None`; keywords beside a reference override what it refers to."""
        if "anyOf" in source:
            (only,) = [option for option in source["anyOf"] if option.get("type") != "null"]
            source = {**self._resolve(only), **{key: value for key, value in source.items() if key != "anyOf"}}
        if "$ref" in source:
            target = self.definitions[source["$ref"].rpartition("/")[2]]
            source = {**self._resolve(target), **{key: value for key, value in source.items() if key != "$ref"}}
        return source

    def _children(self, source: Schema, node: Schema) -> None:
        if "items" in source:
            node["items"] = self.convert(source["items"])
        if "properties" in source:
            node["properties"] = {name: self.convert(child) for name, child in source["properties"].items()}
            required = [name for name in source.get("required", ()) if _FROM_NAME not in source["properties"][name]]
            if required:
                node["required"] = required
        # Kubernetes has no pattern of names; a validator of the model checks them
        (extra,) = source.get("patternProperties", {"": source.get("additionalProperties")}).values()
        if isinstance(extra, dict):
            node["additionalProperties"] = self.convert(extra)
        elif extra is True:
            node["x-kubernetes-preserve-unknown-fields"] = True


def _default(source: Schema, node: Schema) -> Any:
    """Return an object's default, `{}` or its name: the defaults inside it do the rest."""
    if node["type"] != "object":
        return _without_nulls(source["default"])
    named = source.get(EXACTLY_ONE, ())
    return {key: value for key, value in source["default"].items() if key in named and value is not None}


def _without_nulls(value: Any) -> Any:
    """Return a list's default without the fields of its items that aren't set: Kubernetes has no null there."""
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return {key: each for key, each in value.items() if each is not None} if isinstance(value, dict) else value


def _bounds(source: Schema, node: Schema) -> None:
    """Convert `exclusiveMinimum` to OpenAPI 3.0, where it is a flag of `minimum`."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in source:
            node[bound], node[exclusive] = source[exclusive], True
