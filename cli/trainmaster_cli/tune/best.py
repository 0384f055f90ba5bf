"""A trial of a search as a TrainingJob of its own: what its user has written, with the values of the trial. Pure."""

from __future__ import annotations

from typing import Any

import yaml
from trainmaster_api.spec.job import SEARCHES, TrainingJob
from trainmaster_api.tuning.space import axes_of, final_document
from trainmaster_api.types import MAX_NAME_LENGTH
from trainmaster_api.validation.validate import format_problems, validate

from trainmaster_cli.errors import UserError

Object = dict[str, Any]
_KEPT_METADATA = ("namespace", "labels", "annotations")
_NOT_OURS = ("kubectl.kubernetes.io/", "trainmaster.dev/")


def job_of_trial(job: TrainingJob, document: Object, values: dict[str, Any], suffix: str) -> Object:
    """Return the document of the job that trains the values of a trial at full size.

    Of what the user hasn't written it has what isn't the default: the values of the trial, and the rest as it was.

    Args:
        job: The job as it was searched.
        document: What its user has written.
        values: Of the trial's parameters.
        suffix: Of its name: two jobs of one name are the same job.

    Raises:
        UserError: It would be invalid.
    """
    axes = axes_of(job.spec)
    whole = final_document(job, axes, values)
    own = document.get("spec", {})
    spec = {key: value for key, value in own.items() if key not in ("training", *SEARCHES)}
    full = {
        "apiVersion": job.api_version,
        "kind": job.kind,
        "metadata": _metadata(document.get("metadata", {}), suffix),
        "spec": {"training": whole["spec"]["training"], **spec},
    }
    valid, problems = validate(full)
    if valid is None:
        raise UserError(f"these values can't be trained at full size:\n{format_problems(problems)}")
    kept = _paths(own.get("training", {})) | {path for each in axes for path in _above(each.path)}
    return _slim(full, valid.wire(), kept)


def _metadata(metadata: Object, suffix: str) -> Object:
    name = f"{metadata['name'][: MAX_NAME_LENGTH - len(suffix) - 1].rstrip('-')}-{suffix}"
    kept = {key: metadata[key] for key in _KEPT_METADATA if metadata.get(key)}
    notes = {k: v for k, v in kept.pop("annotations", {}).items() if not k.startswith(_NOT_OURS)}
    return {"name": name, **kept, **({"annotations": notes} if notes else {})}


def _slim(full: Object, meant: Object, kept: set[str]) -> Object:
    """Return the document without what is the default and was not written; it means the same."""

    def visit(path: list[str]) -> None:
        nonlocal full
        for key in list(_at(full, path)):
            below = [*path, key]
            if ".".join(below[2:]) not in kept:
                without = _without(full, below)
                job, _ = validate(without)
                if job is not None and job.wire() == meant:
                    full = without
                    continue
            if isinstance(_at(full, below), dict):
                visit(below)

    visit(["spec", "training"])
    return full


def _at(node: Any, path: list[str]) -> Any:
    for key in path:
        node = node[key]
    return node


def _without(node: Object, path: list[str]) -> Object:
    first, *rest = path
    if not rest:
        return {key: value for key, value in node.items() if key != first}
    return {**node, first: _without(node[first], rest)}


def _paths(node: Any, prefix: str = "") -> set[str]:
    """Return the dotted path of each key."""
    found: set[str] = set()
    for key, value in node.items() if isinstance(node, dict) else ():
        found |= {f"{prefix}{key}"} | _paths(value, f"{prefix}{key}.")
    return found


def _above(path: str) -> list[str]:
    steps = path.split(".")
    return [".".join(steps[: end + 1]) for end in range(len(steps))]


def as_yaml(document: Object) -> str:
    """Return a document as YAML, short lists in one line."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Lists of plain values in one line, as people write them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists, too."""
        super().increase_indent(flow, False)


def _represent_list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    is_plain = not any(isinstance(each, dict | list) for each in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=is_plain)


_Dumper.add_representer(list, _represent_list)
