"""Checks of `spec.cluster` that a schema can't express: CPU limits, and what a pod template must not set.

A template is an arbitrary PodSpec, merged under the operator's pod. Three kinds of fields are rejected by name: those
that the operator sets itself (they would be ignored), those that would break the job, and those that would let someone
who may create TrainingJobs do more than the Pod Security Standard `restricted` allows.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any, NamedTuple

from trainmaster_api import GROUP, names
from trainmaster_api.spec.cluster import Workers
from trainmaster_api.types import parse_quantity

from .problem import shown

Object = dict[str, Any]

OUR_VOLUMES = ("job", "scratch", "tmp", "shm", "token")
_SECRET_VOLUMES = ("job", "token")
# Nothing may be mounted there, nor below, nor over it.
_CLOSED_PATHS = (names.RUN_DIR, names.TOKEN_DIR, posixpath.dirname(names.RUN_DIR))
_OUR_PATHS = (*_CLOSED_PATHS, names.SCRATCH_DIR, "/tmp", "/dev/shm", names.TERMINATION_MESSAGE_PATH)
_OUR_VARIABLES = {
    names.ENV_POD_IP: "",
    names.ENV_POD_NAME: "",
    "HOME": "",
    "TMPDIR": "",
    "AWS_REGION": "storage.region",
    "AWS_DEFAULT_REGION": "storage.region",
    "AWS_ENDPOINT_URL": "storage.endpoint",
}
_OUR_PREFIXES = ("TRAINMASTER_", "RAY_AUTH_")
_HOST_NAMESPACES = ("hostNetwork", "hostPID", "hostIPC")
# Fields of the pod that are the operator's, with the field of the TrainingJob that sets them.
_OUR_POD_FIELDS = {
    "terminationGracePeriodSeconds": "run.stopGraceSeconds",
    "activeDeadlineSeconds": "run.activeDeadlineSeconds",
    "hostname": "",
    "subdomain": "",
    "setHostnameAsFQDN": "",
    "enableServiceLinks": "",
    "shareProcessNamespace": "",
    "ephemeralContainers": "",
    "serviceAccount": "cluster.{part}.template.spec.serviceAccountName",
}
_MERGED = ("name", "env", "envFrom", "volumeMounts", "volumeDevices", "resources", "securityContext", "ports")
_OUR_CONTAINER_FIELDS = {"image": "cluster.image", "imagePullPolicy": "cluster.imagePullPolicy"}
_OUR_RESOURCES = {
    ("requests", "cpu"): "cpus",
    ("limits", "cpu"): "cpuLimit",
    ("requests", "memory"): "memory",
    ("limits", "memory"): "memory",
    ("requests", "nvidia.com/gpu"): "gpus",
    ("limits", "nvidia.com/gpu"): "gpus",
}
_BY_OPERATOR = "is set by the operator"
_SAFE_PROFILES = ("RuntimeDefault", "Localhost")
_SAFE_SELINUX_TYPES = (None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")


class Finding(NamedTuple):
    """One problem, in the order of `Problem`'s fields."""

    path: str
    message: str
    value: str = ""
    accepted: str = ""
    hint: str = ""


def cluster_findings(job: Object) -> list[Finding]:
    """Return every problem of `spec.cluster` that the schema doesn't know. `job`: a TrainingJob as plain data.

    Parts of a wrong type are passed over: the schema, or the API server when the pod is created, reports those.
    """
    cluster = _mapping(_mapping(job.get("spec")).get("cluster"))
    found: list[Finding] = []
    for part in ("head", "workers"):
        group, path = _mapping(cluster.get(part)), f"spec.cluster.{part}"
        found += _cpu_limit(group, path)
        template = _mapping(group.get("template"))
        found += _metadata(_mapping(template.get("metadata")), f"{path}.template.metadata")
        found += _pod(_mapping(template.get("spec")), part, f"{path}.template.spec")
    return found


def host_path_findings(job: Object) -> list[Finding]:
    """Return every hostPath volume, which only an operator with --allow-host-path creates pods with."""
    cluster = _mapping(_mapping(job.get("spec")).get("cluster"))
    found = []
    for part in ("head", "workers"):
        template = _mapping(_mapping(cluster.get(part)).get("template"))
        for index, volume in _items(_mapping(template.get("spec")), "volumes"):
            if volume.get("hostPath") is not None:
                path = f"spec.cluster.{part}.template.spec.volumes[{index}].hostPath"
                hint = "use a persistentVolumeClaim, or ask the operator's administrator for --allow-host-path"
                found.append(Finding(path, "hostPath volumes are not allowed by this operator", hint=hint))
    return found


def _cpu_limit(group: Object, path: str) -> Iterator[Finding]:
    limit, request = group.get("cpuLimit"), group.get("cpus", Workers.model_fields["cpus"].default)
    if limit is None or request is None:
        return
    try:
        fits = parse_quantity(limit) >= parse_quantity(request)
    except ValueError:
        return
    if not fits:
        yield Finding(f"{path}.cpuLimit", f"must be at least cpus, {request}", shown(limit))


def _metadata(metadata: Object, path: str) -> Iterator[Finding]:
    for kind in ("labels", "annotations"):
        for key in _mapping(metadata.get(kind)):
            reserved = str(key).partition("/")[0] == GROUP or key == names.LABEL_MANAGED_BY
            if reserved:
                yield Finding(f"{path}.{kind}[{key}]", _BY_OPERATOR, hint="leave it out")


def _pod(spec: Object, part: str, path: str) -> Iterator[Finding]:
    for field in _HOST_NAMESPACES:
        if spec.get(field):
            yield Finding(f"{path}.{field}", "is not allowed: the pod would share a namespace of its node", "true")
    for field, source in _OUR_POD_FIELDS.items():
        if spec.get(field) is not None:
            yield Finding(f"{path}.{field}", _BY_OPERATOR, shown(spec[field]), hint=_instead(source, part))
    if spec.get("restartPolicy", "Never") != "Never":
        text = "must be Never: a failed pod is replaced by the operator, which resumes from a checkpoint"
        yield Finding(f"{path}.restartPolicy", text, shown(spec["restartPolicy"]))
    if spec.get("automountServiceAccountToken"):
        text = "must be false: training code gets no token for the API server"
        yield Finding(f"{path}.automountServiceAccountToken", text, "true")
    yield from _security(spec.get("securityContext"), f"{path}.securityContext")
    yield from _volumes(spec, path)
    yield from _containers(spec, part, path)


def _instead(source: str, part: str) -> str:
    return f"set {source.format(part=part)} instead" if source else "leave it out"


def _security(context: Any, path: str) -> Iterator[Finding]:
    """Yield what is less strict than `restricted` in a securityContext."""
    context = _mapping(context)
    refused = {
        "privileged": context.get("privileged"),
        "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation"),
        "runAsNonRoot": context.get("runAsNonRoot") is False,
        "runAsUser": context.get("runAsUser") == 0,
        "procMount": context.get("procMount") not in (None, "Default"),
        "windowsOptions": context.get("windowsOptions"),
        "sysctls": context.get("sysctls"),
        "seLinuxOptions": _is_loose_selinux(_mapping(context.get("seLinuxOptions"))),
        "capabilities.add": _mapping(context.get("capabilities")).get("add"),
    }
    for field, bad in refused.items():
        if bad:
            value = _mapping(context.get("capabilities")).get("add") if "." in field else context.get(field)
            text = "is not allowed: it would loosen the pod's isolation (Pod Security Standard `restricted`)"
            yield Finding(f"{path}.{field}", text, shown(value))
    for field in ("seccompProfile", "appArmorProfile"):
        kind = _mapping(context.get(field)).get("type")
        if kind not in (None, *_SAFE_PROFILES):
            yield Finding(f"{path}.{field}.type", "must be", shown(kind), "one of RuntimeDefault, Localhost")


def _is_loose_selinux(options: Object) -> bool:
    """Return whether an SELinux option is not permitted by `restricted`: `spc_t`, for one, would be privileged."""
    return bool(options.get("user") or options.get("role")) or options.get("type") not in _SAFE_SELINUX_TYPES


def _volumes(spec: Object, path: str) -> Iterator[Finding]:
    for index, volume in _items(spec, "volumes"):
        where = f"{path}.volumes[{index}]"
        if volume.get("name") in OUR_VOLUMES:
            text = "is the name of a volume of the operator"
            yield Finding(f"{where}.name", text, shown(volume["name"]), hint="choose another name")
        for number, source in _items(_mapping(volume.get("projected")), "sources"):
            token = source.get("serviceAccountToken")
            if token is not None and _mapping(token).get("audience") in (None, "", names.PROGRESS_AUDIENCE):
                text = "needs its own audience: training code gets no token for the API server or the operator"
                yield Finding(f"{where}.projected.sources[{number}].serviceAccountToken.audience", text)


def _containers(spec: Object, part: str, path: str) -> Iterator[Finding]:
    ours = 0
    for kind in ("containers", "initContainers"):
        for index, container in _items(spec, kind):
            where = f"{path}.{kind}[{index}]"
            yield from _security(container.get("securityContext"), f"{where}.securityContext")
            for number, port in _items(container, "ports"):
                if port.get("hostPort"):
                    yield Finding(
                        f"{where}.ports[{number}].hostPort", "is not allowed: it would use a port of the node"
                    )
            if container.get("name") != names.CONTAINER:
                yield from _foreign_mounts(container, where)
                continue
            ours += 1
            if kind != "containers" or ours > 1:
                text = "is reserved for the training container"
                yield Finding(f"{where}.name", text, shown(names.CONTAINER), hint="choose another name")
            else:
                yield from _trainer(container, part, where)


def _foreign_mounts(container: Object, path: str) -> Iterator[Finding]:
    """Yield mounts of the Ray key and of the progress token in other containers than the training container."""
    for index, mount in _items(container, "volumeMounts"):
        if mount.get("name") in _SECRET_VOLUMES:
            text = "is a volume that only the training container may mount"
            yield Finding(f"{path}.volumeMounts[{index}].name", text, shown(mount["name"]))


def _trainer(container: Object, part: str, path: str) -> Iterator[Finding]:
    for field in container:
        if field not in _MERGED:
            source = _OUR_CONTAINER_FIELDS.get(field, "")
            yield Finding(f"{path}.{field}", _BY_OPERATOR, shown(container[field]), hint=_instead(source, part))
    seen: set[str] = set()
    for index, variable in _items(container, "env"):
        name = str(variable.get("name"))
        if name in _OUR_VARIABLES or name.startswith(_OUR_PREFIXES):
            hint = _instead(_OUR_VARIABLES.get(name, ""), part)
            yield Finding(f"{path}.env[{index}].name", _BY_OPERATOR, shown(name), hint=hint)
        elif name in seen:
            yield Finding(f"{path}.env[{index}].name", "is set twice", shown(name), hint="remove one of them")
        seen.add(name)
    resources = _mapping(container.get("resources"))
    for (kind, resource), field in _OUR_RESOURCES.items():
        if resource in _mapping(resources.get(kind)):
            hint = f"set cluster.{part}.{field} instead" if (part, field) != ("head", "gpus") else "the head has no GPU"
            yield Finding(f"{path}.resources.{kind}[{resource}]", _BY_OPERATOR, hint=hint)
    for index, mount in _items(container, "volumeMounts"):
        yield from _mount(mount, f"{path}.volumeMounts[{index}]")


def _mount(mount: Object, path: str) -> Iterator[Finding]:
    target = mount.get("mountPath")
    if mount.get("name") in OUR_VOLUMES:
        yield Finding(f"{path}.name", "is a volume of the operator, which mounts it itself", shown(mount["name"]))
    elif isinstance(target, str) and _is_ours(target):
        text = "collides with a volume of the operator"
        yield Finding(f"{path}.mountPath", text, shown(target), hint=f"reserved are {', '.join(_OUR_PATHS[2:])}")


def _is_ours(target: str) -> bool:
    """Return whether a mount would hide one of the operator's, or be inside one. /run is /var/run in most images."""
    path = posixpath.normpath(posixpath.join("/", target))
    path = f"/var{path}" if path == "/run" or path.startswith("/run/") else path
    hides = any(ours == path or ours.startswith(path.rstrip("/") + "/") for ours in _OUR_PATHS)
    return hides or any(path.startswith(f"{closed}/") for closed in _CLOSED_PATHS)


def _mapping(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _items(parent: Object, field: str) -> Iterator[tuple[int, Object]]:
    """Yield the mappings of a list, with their index."""
    found = parent.get(field)
    for index, item in enumerate(found if isinstance(found, list) else ()):
        if isinstance(item, dict):
            yield index, item
