"""Raises the budget of a search in the text of a job's file and leaves everything else as its user wrote it. Pure."""

from __future__ import annotations

import copy
from typing import Any

import yaml
from trainmaster_api.tuning.budget import Limit
from trainmaster_api.validation.yaml_reader import parse_documents

_QUOTES = ("'", '"')


class NoPlaceError(ValueError):
    """A limit can't be set without a change of something else, as where an alias stands for the budget."""


def with_limit(text: str, limit: Limit) -> str:
    """Return the text of a valid job with a search, with another limit.

    Args:
        text: YAML or JSON.
        limit: The new one.

    Raises:
        NoPlaceError: Something else would change.
    """
    start, end, new = _edit(text, limit)
    changed = text[:start] + new + text[end:]
    before, after = parse_documents(text), parse_documents(changed)
    expected = copy.deepcopy(before[0].data)
    *above, field = limit.steps
    node = expected["spec"]
    for step in above:
        node = node.setdefault(step, {})
    node[field] = str(limit.value) if isinstance(node.get(field), str) else limit.value
    if len(after) != 1 or after[0].problems or after[0].data != expected:
        raise NoPlaceError(f"{limit.path} can't be set without changing something else")
    return changed


def _edit(text: str, limit: Limit) -> tuple[int, int, str]:
    """Return what is put in the place of which part of the text."""
    *above, field = limit.steps
    parent, node = None, _child(yaml.compose(text, Loader=yaml.SafeLoader), "spec")
    for step in above:
        parent, node = node, _child(node, step)
    if node is None:
        return _insertion(text, parent, above[-1], f"{{{_quoted(parent, field)}: {limit.value}}}")
    given = _child(node, field)
    if given is None:
        return _insertion(text, node if node.value else parent, field, str(limit.value), into=node)
    quote = given.style if given.style in _QUOTES else ""
    return given.start_mark.index, given.end_mark.index, f"{quote}{limit.value}{quote}"


def _child(node: Any, key: str) -> Any:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for name, value in pairs if isinstance(name, yaml.ScalarNode) and name.value == key), None)


def _insertion(text: str, node: Any, key: str, value: str, into: Any = None) -> tuple[int, int, str]:
    """Return how a key is put before the first one of a mapping.

    Args:
        text: The whole text.
        node: A mapping whose keys show how keys are written.
        key: The new key.
        value: Its value.
        into: The mapping that gets it; default: the same.
    """
    into = into or node
    if not isinstance(node, yaml.MappingNode) or not isinstance(into, yaml.MappingNode):
        raise NoPlaceError(f"what has {key} is no mapping")
    entry = f"{_quoted(node, key)}: {value}"
    if not into.value:  # {}
        return into.start_mark.index, into.end_mark.index, f"{{{entry}}}"
    first = node.value[0][0].start_mark
    newline = "\r\n" if "\r\n" in text else "\n"
    rest = ", " if node.flow_style else f"{newline}{' ' * first.column}"
    return first.index, first.index, f"{entry}{rest}"


def _quoted(node: Any, key: str) -> str:
    """Return a key as the others of a mapping are written: in quotes in JSON."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return f'"{key}"' if pairs and pairs[0][0].style == '"' else key
