"""Validation of a TrainingJob: every problem at once, in the sentences that the API server's rules use too.

The command line, the admission hook and the operator's `Accepted` condition all call `validate`.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from trainmaster_api import API_VERSION, KIND
from trainmaster_api.spec.job import TrainingJob

from .describe import accepted_by, shown
from .pod_template import cluster_findings
from .rule import Rule
from .schema import Schema, apply_defaults, node_at, structural
from .variants import all_rules

_ABSENT = object()


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a document.

    Attributes:
        path: where, as in `spec.training.data.features[0]`; empty: the document itself.
        message: what is wrong, a clause that goes on from the path.
        value: what stands there, as text; empty where there is nothing.
        accepted: what would be accepted there; empty where the message says it.
        hint: the next thing to do; may be empty.
        line: line in the file, from 1; 0: unknown.
    """

    path: str
    message: str
    value: str = ""
    accepted: str = ""
    hint: str = ""
    line: int = 0

    def __str__(self) -> str:
        """One line: path, value, message, what is accepted, what to do."""
        where = f"{self.path} = {self.value}" if self.path and self.value else self.path or self.value
        link = " " if self.message.endswith(" be") else ": "
        text = self.message + (f"{link}{self.accepted}" if self.accepted else "") + (f"; {self.hint}" * bool(self.hint))
        return f"{where}: {text}" if where else text


def validate(document: Any) -> tuple[TrainingJob | None, list[Problem]]:
    """Check a document that claims to be a TrainingJob.

    Args:
        document: what a YAML or JSON file holds. `status` is left out of it: it is the operator's.

    Returns:
        The job with every default filled in, or None, and all problems; a job is returned exactly if there are none.
        Never raises.
    """
    problems = _no_plain_mapping(document)
    if problems:
        return None, problems
    schema = structural().schema
    data = {key: value for key, value in document.items() if key != "status"}
    problems = [*_header_problems(data), *_null_problems(data, schema, "")]
    filled = apply_defaults(data, schema)
    job: TrainingJob | None = None
    refusal = ""
    try:
        job = TrainingJob.model_validate(_without_nulls(filled, schema), strict=True)
    except ValidationError as error:
        problems += _translate(error)
        refusal = str(error)
    problems += _rule_problems(filled, problems)
    problems += [Problem(*found) for found in cluster_findings(filled)]
    if job is None and not problems:  # a refusal that none of our sentences covers is still a refusal
        problems = [Problem("", refusal)]
    problems = _distinct(problems)
    return (None, problems) if problems else (job, [])


def format_problems(problems: list[Problem], name: str = "") -> str:
    """All problems as text for people, one per line. `name`: the file, put before the line numbers."""
    lines = []
    for problem in problems:
        at = ":".join(part for part in (name, str(problem.line) if problem.line else "") if part)
        lines.append(f"{at}: {problem}" if at else str(problem))
    return "\n".join(lines)


def _no_plain_mapping(document: Any) -> list[Problem]:
    if not isinstance(document, dict):
        return [Problem("", f"not a {KIND}, but {_kind_of(document)}", hint=f"see examples/ for a {KIND}")]
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return [Problem("", f"can't be written as JSON: {error}")]
    return []


def _kind_of(value: Any) -> str:
    names = {list: "a list", str: "text", type(None): "nothing", bool: "true or false", int: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")


def _header_problems(data: dict[str, Any]) -> Iterator[Problem]:
    for key, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if data.get(key) != expected:
            value = shown(data[key]) if key in data else ""
            yield Problem(key, "must be" if value else "is missing", value, accepted=expected)


def _null_problems(value: Any, schema: Schema, path: str) -> Iterator[Problem]:
    """A null stands for "absent" only where there is a default, as the API server has it."""
    for key, item in value.items():
        node = schema.get("properties", {}).get(key)
        where = f"{path}.{key}" if path else str(key)
        if item is None and node is not None and "default" not in node:
            yield Problem(where, "is empty", accepted=accepted_by(node), hint="leave it out or give it a value")
        elif isinstance(item, dict) and node is not None:
            yield from _null_problems(item, node, where)


def _without_nulls(value: Any, schema: Schema) -> Any:
    """Nulls that were reported already are taken out, so that they are reported once."""
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    nodes = schema["properties"]
    kept = {key: item for key, item in value.items() if not (item is None and key in nodes)}
    return {key: _without_nulls(item, nodes.get(key, {})) for key, item in kept.items()}


def _distinct(problems: list[Problem]) -> list[Problem]:
    """Without a second problem of the same path and words, and without what follows from a problem further up."""
    found: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        found.setdefault((problem.path, problem.message), problem)
    empty = {path for path, message in found if message == "is empty"}
    return [problem for problem in found.values() if problem.message != "is required" or problem.path not in empty]


# --- what pydantic found -------------------------------------------------------------------------------------------


def _translate(error: ValidationError) -> list[Problem]:
    found = []
    for item in error.errors(include_url=False, include_context=False):
        path, foreign = _locate(item["loc"])
        if path not in ("apiVersion", "kind") and not _has_rule(path, item["type"]):
            found.append(_problem(item["type"], path, foreign, item["input"], item["msg"]))
    return found


def _locate(location: tuple[int | str, ...]) -> tuple[str, set[str]]:
    """Path in the document, and the paths that belong to other variants of the unions on the way.

    Pydantic puts a union's variant into the location, which nobody wrote.
    """
    path, foreign = "", set()
    for step in location:
        union = structural().union_at(path)
        if union is not None and step in union.fields:
            own = union.fields[str(step)]
            others = {field for fields in union.fields.values() for field in fields if field not in own}
            foreign |= {f"{path}.{field}" for field in others}
        elif isinstance(step, int):
            path += f"[{step}]"
        else:
            path = f"{path}.{step}" if path else step
    return path, foreign


def _has_rule(path: str, kind: str) -> bool:
    """Rules speak for fields of another variant, for fields that only one variant needs, and for the name."""
    if path == "metadata.name":
        return kind in ("string_pattern_mismatch", "string_too_long", "string_too_short")
    parent, _, name = path.rpartition(".")
    above = node_at(structural().schema, parent) or {}
    if kind == "extra_forbidden":
        return name in above.get("properties", {})
    return kind == "missing" and name not in above.get("required", ()) and path.startswith("spec.")


def _problem(kind: str, path: str, foreign: set[str], value: Any, text: str) -> Problem:
    node = node_at(structural().schema, path)
    if kind == "extra_forbidden":
        return _unknown_field(path, value, foreign)
    if kind == "missing":
        return Problem(path, "is required", accepted=accepted_by(node))
    union = structural().union_at(path)
    if kind in ("union_tag_invalid", "union_tag_not_found") and union is not None and isinstance(value, dict):
        path, node = f"{path}.{union.tag}", node_at(structural().schema, f"{path}.{union.tag}")
        if union.tag not in value:
            return Problem(path, "is required", accepted=accepted_by(node))
        value = value[union.tag]
    accepted = accepted_by(node)
    if not accepted:
        return Problem(path, text[:1].lower() + text[1:], shown(value))
    return Problem(path, "must be", shown(value), accepted, _way_out(value, node or {}))


def _way_out(value: Any, node: Schema) -> str:
    if isinstance(value, bool | int | float) and node.get("type") == "string" and "enum" not in node:
        return "in YAML, text that looks like this needs quotes" if _fits(str(value), node) else ""
    choices = [choice for choice in node.get("enum", ()) if isinstance(choice, str)]
    near = difflib.get_close_matches(value.lower(), choices, n=1) if isinstance(value, str) else []
    return f"did you mean `{near[0]}`?" if near and len(choices) > 1 else ""


def _fits(text: str, node: Schema) -> bool:
    return re.search(node.get("pattern", ""), text) is not None


def _unknown_field(path: str, value: Any, foreign: set[str]) -> Problem:
    parent, _, name = path.rpartition(".")
    properties = (node_at(structural().schema, parent) or {}).get("properties", {})
    known = {other.lower(): other for other in properties if f"{parent}.{other}" not in foreign}
    near = difflib.get_close_matches(name.lower().replace("_", ""), known, n=1)
    if near:
        return Problem(path, "unknown field", shown(value), hint=f"did you mean `{known[near[0]]}`?")
    elsewhere = [other for other in _field_paths() if other.rpartition(".")[2].lower() == name.lower()]
    hint = f"did you mean {elsewhere[0]}?" if elsewhere else ""
    return Problem(path, "unknown field", shown(value), f"known here are {', '.join(known.values())}", hint)


@lru_cache(maxsize=1)
def _field_paths() -> tuple[str, ...]:
    """Every field of the spec, shallow ones first."""

    def walk(node: Schema, path: str) -> Iterator[str]:
        for name, child in node.get("properties", {}).items():
            yield f"{path}.{name}"
            yield from walk(child, f"{path}.{name}")

    found = walk(structural().schema["properties"]["spec"], "spec")
    return tuple(sorted(found, key=lambda path: path.count(".")))


# --- rules ---------------------------------------------------------------------------------------------------------


def _rule_problems(data: dict[str, Any], problems: list[Problem]) -> list[Problem]:
    bad = [problem.path for problem in problems]
    found = []
    for rule in all_rules():
        value = value_at(data, rule.scope)
        if not isinstance(value, dict) or any(_touches(rule, read, bad) for read in rule.reads):
            continue
        if not rule.check(value):
            there = value_at(data, rule.path)
            text = "" if there is _ABSENT or isinstance(there, dict | list) else shown(there)
            found.append(Problem(rule.path, rule.say(value), text))
    return found


def _touches(rule: Rule, read: str, bad: list[str]) -> bool:
    """Whether something at, above or below what the rule reads is wrong already."""
    path = f"{rule.scope}.{read}" if rule.scope else read
    return any(_is_within(path, other) or _is_within(other, path) for other in bad)


def _is_within(path: str, other: str) -> bool:
    return path == other or (path.startswith(other) and path[len(other)] in ".[") or not other


def value_at(data: Any, path: str) -> Any:
    """What stands at a path such as `spec.training.data.features[0]`; a marker if nothing does."""
    for step in re.split(r"\.|(?=\[)", path) if path else ():
        if step.startswith("["):
            index = int(step[1:-1])
            data = data[index] if isinstance(data, list) and index < len(data) else _ABSENT
        else:
            data = data.get(step, _ABSENT) if isinstance(data, dict) else _ABSENT
    return data
