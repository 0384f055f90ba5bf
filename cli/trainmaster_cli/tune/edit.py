"""Sets `maxTrials` in the text of a job's file and leaves everything else as its user has written it. Pure."""

from __future__ import annotations

import copy
from typing import Any

import yaml
from trainmaster_api.validation.yaml_reader import parse_documents

_BUDGET, _TRIALS = "budget", "maxTrials"


class NoPlaceError(ValueError):
    """The number can't be set without a change of something else, as where an alias stands for the budget."""


def with_trials(text: str, trials: int) -> str:
    """Return the text of a valid job with a search, with another `spec.tuning.budget.maxTrials`.

    Args:
        text: YAML or JSON.
        trials: The new value.

    Raises:
        NoPlaceError: Something else would change.
    """
    start, end, new = _edit(text, trials)
    changed = text[:start] + new + text[end:]
    before, after = parse_documents(text), parse_documents(changed)
    expected = copy.deepcopy(before[0].data)
    expected["spec"]["tuning"].setdefault(_BUDGET, {})[_TRIALS] = trials
    if len(after) != 1 or after[0].problems or after[0].data != expected:
        raise NoPlaceError("spec.tuning.budget.maxTrials can't be set without changing something else")
    return changed


def _edit(text: str, trials: int) -> tuple[int, int, str]:
    """Return what is put in the place of which part of the text."""
    tuning = _child(_child(yaml.compose(text, Loader=yaml.SafeLoader), "spec"), "tuning")
    budget = _child(tuning, _BUDGET)
    if budget is None:
        return _insertion(text, tuning, _BUDGET, f"{{{_quoted(tuning, _TRIALS)}: {trials}}}")
    given = _child(budget, _TRIALS)
    if given is None:
        return _insertion(text, budget if budget.value else tuning, _TRIALS, str(trials), into=budget)
    return given.start_mark.index, given.end_mark.index, str(trials)


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
        raise NoPlaceError("spec.tuning is no mapping")
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
