"""Merges a user's PodTemplateSpec under the operator's own pod: what the operator sets wins."""

from __future__ import annotations

import copy
from typing import Any

from trainmaster_api import names
from trainmaster_api.spec.cluster import PodTemplateSpec

Object = dict[str, Any]

# Merged field by field below; every other field of the template's spec is taken as it is unless the operator sets it.
_MERGED = ("containers", "initContainers", "volumes", "tolerations", "securityContext")
# Restricted regardless of the template; the rest of a securityContext is a default that a template may change.
_FIXED_POD = ("runAsNonRoot",)
_FIXED_CONTAINER = ("allowPrivilegeEscalation", "readOnlyRootFilesystem")


def merge(pod: Object, template: PodTemplateSpec) -> Object:
    """Return the pod with everything in it that the template adds.

    Args:
        pod: The operator's pod, with one container, named `trainer`.
        template: The user's; validated, so it sets nothing that the operator must set. Never changed.
    """
    spec, theirs = pod["spec"], copy.deepcopy(template.spec)
    mine = {item.get("name"): item for item in _list(theirs, "containers")}.get(names.CONTAINER, {})
    others = [_restricted(item) for item in _list(theirs, "containers") if item.get("name") != names.CONTAINER]
    inits = [_restricted(item) for item in _list(theirs, "initContainers")]
    (trainer,) = spec["containers"]
    merged = {
        **{key: value for key, value in theirs.items() if key not in _MERGED},
        **spec,
        "securityContext": _security(spec["securityContext"], theirs.get("securityContext"), _FIXED_POD),
        "tolerations": _tolerations(_list(theirs, "tolerations"), spec["tolerations"]),
        "containers": [_trainer(trainer, mine), *others],
        "volumes": [*spec["volumes"], *_list(theirs, "volumes")],
        **({"initContainers": inits} if inits else {}),
    }
    meta = pod["metadata"]
    labels = {**template.metadata.labels, **meta["labels"]}
    annotations = {**template.metadata.annotations, **meta["annotations"]}
    return {**pod, "metadata": {**meta, "labels": labels, "annotations": annotations}, "spec": merged}


def _trainer(ours: Object, theirs: Object) -> Object:
    """Merge the training container: lists are joined, and our value of an environment variable takes precedence."""
    set_by_us = {item["name"] for item in ours["env"]}
    merged = {
        **ours,
        # ours first, so that theirs may refer to them: $(POD_IP)
        "env": [*ours["env"], *(item for item in _list(theirs, "env") if item.get("name") not in set_by_us)],
        "resources": _resources(ours["resources"], theirs.get("resources") or {}),
        "securityContext": _security(ours["securityContext"], theirs.get("securityContext"), _FIXED_CONTAINER),
        "volumeMounts": [*ours["volumeMounts"], *_list(theirs, "volumeMounts")],
    }
    # of two sources with the same key the last one counts: the credentials' Secret
    sources = [*_list(theirs, "envFrom"), *_list(ours, "envFrom")]
    extra = {key: theirs[key] for key in ("volumeDevices", "ports") if theirs.get(key)}
    return {**merged, **extra, **({"envFrom": sources} if sources else {})}


def _restricted(container: Object) -> Object:
    """Return a user's container with the defaults that Pod Security `restricted` requires."""
    given = container.get("securityContext") or {}
    capabilities = {"drop": ["ALL"], **(given.get("capabilities") or {})}
    return {
        **container,
        "securityContext": {"allowPrivilegeEscalation": False, **given, "capabilities": capabilities},
    }


def _resources(ours: Object, theirs: Object) -> Object:
    merged = {kind: {**(theirs.get(kind) or {}), **ours[kind]} for kind in ("requests", "limits")}
    return {**merged, "claims": theirs["claims"]} if theirs.get("claims") else merged


def _security(ours: Object, theirs: Object | None, fixed: tuple[str, ...]) -> Object:
    theirs = theirs or {}
    merged = {**ours, **theirs, **{key: ours[key] for key in fixed}}
    if "capabilities" in ours:
        merged["capabilities"] = ours["capabilities"]
    return merged


def _tolerations(theirs: list[Object], ours: list[Object]) -> list[Object]:
    """Return the tolerations; a template that tolerates dead nodes itself overrides ours."""
    named = {item.get("key") for item in theirs}
    return [*theirs, *(item for item in ours if item["key"] not in named)]


def _list(parent: Object, field: str) -> list[Any]:
    found = parent.get(field)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
