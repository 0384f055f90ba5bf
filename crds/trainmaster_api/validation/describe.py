"""What a schema accepts, in words."""

from __future__ import annotations

from .schema import NOUN, Schema


def accepted_by(schema: Schema | None) -> str:
    """Return what would be accepted, as a noun phrase; empty if the schema doesn't say."""
    if not schema:
        return ""
    if "enum" in schema:
        choices = [str(choice) for choice in schema["enum"]]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if schema.get("examples"):
        noun = schema.get(NOUN) or (
            "a quantity" if schema.get("x-kubernetes-int-or-string") else _NOUNS.get(schema.get("type", ""), "a string")
        )
        return f"{noun} such as {', '.join(map(str, schema['examples']))}"
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return _number(schema)
    if kind == "array":
        return _list(schema)
    if kind == "object":
        return _mapping(schema)
    if kind == "boolean":
        return "true or false"
    return f"a string{_size(schema, 'Length', 'characters')}" if kind == "string" else ""


_NOUNS = {"string": "a string", "integer": "an integer", "number": "a number"}


def _number(schema: Schema) -> str:
    noun = _NOUNS[schema["type"]]
    low, high = schema.get("minimum"), schema.get("maximum")
    parts = []
    if low is not None:
        parts.append(f"above {_figure(low)}" if schema.get("exclusiveMinimum") else f"at least {_figure(low)}")
    if high is not None:
        parts.append(f"below {_figure(high)}" if schema.get("exclusiveMaximum") else f"at most {_figure(high)}")
    return (
        f"{noun} of {' and '.join(parts)}".replace("of above", "above").replace("of below", "below") if parts else noun
    )


def _figure(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _list(schema: Schema) -> str:
    least, most = schema.get("minItems"), schema.get("maxItems")
    count = f" of {least} items" if least is not None and least == most else _size(schema, "Items", "items")
    item = accepted_by(schema.get("items"))
    return f"a list{count}" + (f", each {item}" if item else "")


def _mapping(schema: Schema) -> str:
    if "properties" in schema:
        return f"a mapping with the fields {', '.join(schema['properties'])}"
    least = schema.get("minProperties", 0)
    mapping = f"a mapping with at least {least} {'entry' if least == 1 else 'entries'}" if least else "a mapping"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"{mapping} of names to {accepted_by(schema['additionalProperties'])}"
    return mapping


def _size(schema: Schema, what: str, unit: str) -> str:
    least, most = schema.get(f"min{what}"), schema.get(f"max{what}")
    parts = []
    if least:
        parts.append(f"at least {least}")
    if most is not None:
        parts.append(f"at most {most}")
    return f" of {' and '.join(parts)} {unit}" if parts else ""
