"""What a refused creation means: whether time can heal it, and which field of the TrainingJob does if only an edit can.

The texts are the API server's own, of Kubernetes 1.29 to 1.34; an unknown one is taken for something that only an edit
can heal, so that nothing waits without end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from trainmaster_api.names import CONTAINER
from trainmaster_api.reasons import FailureClass, Reason
from trainmaster_api.types import parse_quantity

from .context import PlanContext, WhyNot
from .snapshot import Rejection


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal, understood.

    Attributes:
        reason: for the Provisioned condition.
        message: for people.
        heals: whether the same request may succeed later, without an edit of the TrainingJob.
        hopeless: it heals, but not by waiting for other pods to go: nothing is gained by keeping the pods that exist.
    """

    reason: WhyNot
    message: str
    heals: bool = True
    hopeless: bool = False


def explain(context: PlanContext, rejection: Rejection) -> Refusal:
    """Return what a refusal means for the job."""
    for find in _FINDERS:
        found = find(context, rejection)
        if found is not None:
            return found
    text = (
        f"The API server rejected {_what(rejection)}: {_detail(rejection)}; check cluster.{_part(rejection)}.template"
    )
    return Refusal(FailureClass.POD_REJECTED, f"{text}.", heals=False)


# --- only an edit heals --------------------------------------------------------------------------------------------

_UNSPECIFIED = re.compile(r"must specify (.+)")
_BELOW_LIMIT = re.compile(r"must be less than or equal to (\w+) limit")
_UNKNOWN_FIELD = re.compile(r'unknown field "spec\.([^"]+)"')
_FIELDS = {
    "requests.cpu": "cpus",
    "cpu": "cpus",
    "limits.cpu": "cpuLimit",
    "requests.memory": "memory",
    "limits.memory": "memory",
    "memory": "memory",
}


def _unspecified(context: PlanContext, rejection: Rejection) -> Refusal | None:
    """Read a quota on a resource that containers don't set: `must specify limits.cpu for: trainer,side`."""
    found = _UNSPECIFIED.search(rejection.message)
    if found is None:
        return None
    part, fields = _part(rejection), []
    for group in found[1].split(";"):
        resources, _, containers = group.partition(" for: ")
        for container in containers.split(",") if containers else [CONTAINER]:
            fields += [_field_of(resource.strip(), container.strip(), part) for resource in resources.split(",")]
    text = (
        f"A quota of the namespace requires resources that {_what(rejection)} does not specify: {_detail(rejection)}; "
        f"set {', '.join(dict.fromkeys(fields))}."
    )
    return Refusal(FailureClass.POD_REJECTED, text, heals=False)


def _field_of(resource: str, container: str, part: str) -> str:
    if container == CONTAINER and resource in _FIELDS:
        return f"cluster.{part}.{_FIELDS[resource]}"
    kind, _, name = resource.partition(".")
    where = f"{kind}.{name}" if kind in ("requests", "limits") else f"requests.{resource}"
    return f"cluster.{part}.template.spec.containers[name={container}].resources.{where}"


def _limit_range(context: PlanContext, rejection: Rejection) -> Refusal | None:
    """Read a LimitRange: its bounds are on requests (cpus) and on limits (cpuLimit); memory is both."""
    text, part = rejection.message, _part(rejection)
    below = _BELOW_LIMIT.search(text)
    if not re.search(r"(maximum|minimum) \S+ usage per|limit to request ratio per", text) and below is None:
        return None
    fields = []
    if "memory" in text:
        fields.append("memory")
    if "cpu" in text:
        about_limit = re.search(r"maximum cpu|cpu max limit to request", text) or below
        fields += ["cpuLimit"] if about_limit else ["cpus"]
        fields += ["cpus"] if "cpu max limit to request" in text else []
    named = " and ".join(f"cluster.{part}.{field}" for field in dict.fromkeys(fields)) or f"cluster.{part}"
    cause = "The default limit of a LimitRange" if below else "A LimitRange of the namespace"
    message = f"{cause} does not permit {_what(rejection)}: {_detail(rejection)}; change {named}."
    return Refusal(FailureClass.POD_REJECTED, message, heals=False)


def _unknown_field(context: PlanContext, rejection: Rejection) -> Refusal | None:
    found = _UNKNOWN_FIELD.findall(rejection.message)
    if not found:
        return None
    paths = ", ".join(f"cluster.{_part(rejection)}.template.spec.{path}" for path in found)
    return Refusal(FailureClass.POD_REJECTED, f"A pod has no field {paths}; correct its name.", heals=False)


def _denied(context: PlanContext, rejection: Rejection) -> Refusal | None:
    """Read a decision about this pod, which will be the same next time."""
    webhook = re.search(r'admission webhook "([^"]+)" denied the request', rejection.message)
    if webhook is None and "violates PodSecurity" not in rejection.message:
        return None
    who = f"Admission webhook {webhook[1]}" if webhook else "Pod Security"
    text = f"{who} denied {_what(rejection)}: {_detail(rejection)}; change cluster.{_part(rejection)}.template."
    return Refusal(FailureClass.POD_REJECTED, text, heals=False)


# --- time heals ----------------------------------------------------------------------------------------------------

_QUOTA = ("exceeded quota", "status unknown for quota", "insufficient quota to match these scopes")
_AMOUNT = re.compile(r"([\w./-]+)=([0-9.]+[A-Za-z]*)")


def _quota(context: PlanContext, rejection: Rejection) -> Refusal | None:
    if not any(text in rejection.message for text in _QUOTA):
        return None
    limited = dict(_AMOUNT.findall(rejection.message.partition("limited: ")[2]))
    over = [
        f"{name}={_shown(total)} of {limited[name]}"
        for name, total in _attempt_needs(context).items()
        if name in limited and total > _amount(limited[name])
    ]
    advice = f"raise the quota{_or_lower(rejection, limited)}"
    text = f"The quota of the namespace has no room for {_what(rejection)}: {_detail(rejection)}"
    if over:
        return Refusal(
            Reason.WAITING_FOR_QUOTA,
            f"{text}; the attempt needs {', '.join(over)} in all, so it can't start before you {advice}.",
            hopeless=True,
        )
    return Refusal(Reason.WAITING_FOR_QUOTA, f"{text}. It starts as soon as there is room; to change that, {advice}.")


def _attempt_needs(context: PlanContext) -> dict[str, float]:
    """Return what the training containers of an attempt need in all, by the names that a quota has for it."""
    cluster = context.job.spec.cluster
    head, workers = cluster.head, cluster.workers
    cpu = parse_quantity(head.cpus) + workers.count * parse_quantity(workers.cpus)
    memory = parse_quantity(head.memory) + workers.count * parse_quantity(workers.memory)
    gpus = float(workers.count * workers.gpus)
    found = {"pods": workers.count + 1.0, "count/pods": workers.count + 1.0, "requests.nvidia.com/gpu": gpus}
    found |= {"cpu": cpu, "requests.cpu": cpu}
    return found | dict.fromkeys(("memory", "requests.memory", "limits.memory"), memory)


def _or_lower(rejection: Rejection, limited: dict[str, str]) -> str:
    fields = [f"cluster.{_part(rejection)}.{_FIELDS[name]}" for name in limited if name in _FIELDS]
    return f" or lower {' and '.join(dict.fromkeys(fields))}" if fields and rejection.kind == "Pod" else ""


def _amount(text: str) -> float:
    try:
        return parse_quantity(text)
    except ValueError:  # a suffix that the contract doesn't know: then nothing is claimed
        return float("inf")


def _shown(value: float) -> str:
    return f"{value / 2**30:g}Gi" if value >= 2**30 else f"{value:g}"


def _dependency(context: PlanContext, rejection: Rejection) -> Refusal | None:
    """Read a reference to an object that does not exist yet."""
    part, namespace = f"cluster.{_part(rejection)}.template.spec", context.job.metadata.namespace
    for pattern, kind, field, place in _DEPENDENCIES:
        found = re.search(pattern, rejection.message)
        if found:
            where = f" in namespace {namespace}" if place else ""
            text = f"{_what(rejection, capital=True)} is waiting for the {kind} {found[1]}, which does not exist"
            return Refusal(Reason.WAITING_FOR_DEPENDENCY, f"{text}: create it{where}, or correct {part}.{field}.")
    return None


_DEPENDENCIES = (
    (r'serviceaccount "([^"]+)" not found', "ServiceAccount", "serviceAccountName", True),
    (r"no PriorityClass with name (\S+) was found", "PriorityClass", "priorityClassName", False),
    (r'RuntimeClass "([^"]+)" not found', "RuntimeClass", "runtimeClassName", False),
)


def _terminating(context: PlanContext, rejection: Rejection) -> Refusal | None:
    gone = rejection.code == 404 and "namespaces" in rejection.message
    if not gone and "because it is being terminated" not in rejection.message:
        return None
    namespace = context.job.metadata.namespace
    return Refusal(Reason.NAMESPACE_TERMINATING, f"Namespace {namespace} is being deleted: no pods can be created.")


def _admission(context: PlanContext, rejection: Rejection) -> Refusal | None:
    """Read a failure of the API server, of a webhook or of the operator's permissions, rather than of the pod."""
    if "cannot create resource" in rejection.message:
        text = (
            f"The operator has no permission to create {_what(rejection)}: {_detail(rejection)}; "
            f"install the chart's roles."
        )
        return Refusal(Reason.WAITING_FOR_ADMISSION, text)
    if rejection.code not in (409, 429) and rejection.code < 500:
        return None
    webhook = re.search(r'failed calling webhook "([^"]+)"', rejection.message)
    who = (
        f"Admission webhook {webhook[1]} can't be called" if webhook else "The API server can't admit it at the moment"
    )
    text = f"{_what(rejection, capital=True)} is not created yet. {who}: {_detail(rejection)}. The operator retries."
    return Refusal(Reason.WAITING_FOR_ADMISSION, text)


def _no_field_helps(context: PlanContext, rejection: Rejection) -> Refusal | None:
    """Handle a rejected Secret or Service, which no edit of the job changes."""
    if rejection.kind == "Pod":
        return None
    text = f"{_what(rejection, capital=True)} can't be created: {_detail(rejection)}. The operator retries."
    return Refusal(Reason.WAITING_FOR_ADMISSION, text)


_FINDERS: tuple[Callable[[PlanContext, Rejection], Refusal | None], ...] = (
    _terminating,
    _quota,
    _dependency,
    _admission,
    _no_field_helps,
    _unspecified,
    _limit_range,
    _unknown_field,
    _denied,
)


def _what(rejection: Rejection, *, capital: bool = False) -> str:
    kind = rejection.kind if capital or rejection.kind != "Pod" else "pod"
    return f"{kind} {rejection.name}"


def _part(rejection: Rejection) -> str:
    return "head" if rejection.name.endswith("-head") else "workers"


def _detail(rejection: Rejection) -> str:
    """Return the reason alone: `pods "x" is forbidden:` says again what the sentence has said."""
    text = re.sub(r'^(Pod|pods|secrets|services) "[^"]+" is (forbidden|invalid): ', "", rejection.message)
    text = re.sub(r"\s+", " ", text).strip().rstrip(".")
    return text if len(text) <= 1000 else f"{text[:999]}…"
