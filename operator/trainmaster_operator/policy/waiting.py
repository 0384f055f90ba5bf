"""What pods that don't start are waiting for, in sentences that name the field to change."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from trainmaster_api.names import CREDENTIAL_KEYS
from trainmaster_api.reasons import FailureClass, Reason

from .context import PlanContext, WhyNot
from .snapshot import PodView

IMAGE_PATIENCE_SECONDS = 60
# An image that has trained exists; a registry may be down for a while when a pod comes to a new node.
KNOWN_IMAGE_PATIENCE_SECONDS = 600
# The scheduler needs a moment; its messages of the first seconds are mostly about pods that are just terminating.
SCHEDULER_SECONDS = 3
# Volumes and network of a pod are set up within seconds; the kubelet retries, and reports failures in events only.
SANDBOX_SECONDS = 20

_IMAGE_NEVER = {"ErrImageNeverPull", "InvalidImageName"}
_IMAGE_PULL = {
    "ErrImagePull",
    "ImagePullBackOff",
    "RegistryUnavailable",
    "ImageInspectError",
    "SignatureValidationFailed",
}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError"}


@dataclass(frozen=True, slots=True)
class Waiting:
    """One thing that a pod waits for.

    Attributes:
        reason: for the Provisioned condition.
        image: it is the image that can't be pulled; after `patience` seconds that is final.
    """

    pod: PodView
    reason: WhyNot
    message: str
    image: bool = False
    patience: float = 0.0


def waiting_for(context: PlanContext, pods: Sequence[PodView]) -> Waiting | None:
    """Return the most significant obstacle of pods that run or are to run."""
    order = sorted(pods, key=lambda pod: (pod.role, pod.index or 0))
    for find in (_image, _configuration, _volumes, _unschedulable):
        for pod in order:
            found = find(context, pod)
            if found:
                return found
    return None


def _image(context: PlanContext, pod: PodView) -> Waiting | None:
    if pod.waiting not in _IMAGE_NEVER | _IMAGE_PULL:
        return None
    cluster = context.job.spec.cluster
    part = "head" if pod.role == "head" else "workers"
    advice = f"check cluster.image and, for a private registry, cluster.{part}.template.spec.imagePullSecrets"
    if pod.waiting == "ErrImageNeverPull":
        advice = "load it onto the nodes, or change cluster.imagePullPolicy"
    elif pod.waiting == "InvalidImageName":
        advice = "correct cluster.image"
    detail = _short(pod.waiting_message) or pod.waiting
    text = f"Pod {pod.name} can't pull the image {cluster.image}: {detail}; {advice}."
    patience = KNOWN_IMAGE_PATIENCE_SECONDS if context.status.progress else IMAGE_PATIENCE_SECONDS
    if pod.waiting in _IMAGE_NEVER:
        patience = 0
    return Waiting(pod, FailureClass.IMAGE_PULL, text, image=True, patience=patience)


def _configuration(context: PlanContext, pod: PodView) -> Waiting | None:
    if pod.waiting not in _CONFIG:
        return None
    detail, name = _short(pod.waiting_message) or pod.waiting, context.job.spec.storage.credentials_secret
    namespace, part = context.job.metadata.namespace, "head" if pod.role == "head" else "workers"
    lacking = [key for key in CREDENTIAL_KEYS if f"couldn't find key {key} in Secret" in detail]
    if name and f'secret "{name}" not found' in detail:
        text = (
            f"Pod {pod.name} is waiting for the Secret {name} (storage.credentialsSecret) with the keys "
            f"{' and '.join(CREDENTIAL_KEYS)}: create it in namespace {namespace}, or correct "
            "storage.credentialsSecret."
        )
    elif name and lacking:
        text = (
            f"Pod {pod.name} can't start: the Secret {name} (storage.credentialsSecret) in namespace {namespace} has "
            f"no key {lacking[0]}; add it, or correct storage.credentialsSecret."
        )
    else:
        text = f"The container of pod {pod.name} can't be created: {detail}; check cluster.{part}.template."
    return Waiting(pod, FailureClass.INVALID_CONFIGURATION, text)


def _volumes(context: PlanContext, pod: PodView) -> Waiting | None:
    if not pod.no_sandbox or not pod.node:
        return None
    age = context.since(pod.scheduled_at)
    if age < SANDBOX_SECONDS:
        context.wake_in(SANDBOX_SECONDS - age)
        return None
    needs = f" It mounts {', '.join(pod.mounts)}: check that each exists in namespace" if pod.mounts else ""
    needs += f" {context.job.metadata.namespace}." if pod.mounts else ""
    text = (
        f"Pod {pod.name} has been on node {pod.node} since {pod.scheduled_at}, but its volumes or its network are not "
        f"set up.{needs} `kubectl describe pod {pod.name}` shows the node's events."
    )
    return Waiting(pod, Reason.WAITING_FOR_VOLUMES, text)


def _unschedulable(context: PlanContext, pod: PodView) -> Waiting | None:
    if not pod.unschedulable or pod.node:
        return None
    age = context.since(pod.created)
    if age < SCHEDULER_SECONDS:
        context.wake_in(SCHEDULER_SECONDS - age)
        return None
    cluster = context.job.spec.cluster
    part, asks = "head", f"{cluster.head.cpus} CPUs, {cluster.head.memory} of memory"
    if pod.role != "head":
        part, asks = "workers", f"{cluster.workers.cpus} CPUs, {cluster.workers.memory} of memory"
        asks += f", {cluster.workers.gpus} GPUs" if cluster.workers.gpus else ""
    # what the scheduler tried by preemption is the same again in other words
    said = pod.unschedulable.split(" preemption:")[0].rstrip(" .")
    text = f"No node fits pod {pod.name} ({asks}): {said}; {_advice(said, part)}."
    return Waiting(pod, FailureClass.UNSCHEDULABLE, text)


def _advice(said: str, part: str) -> str:
    fields = {
        "Insufficient cpu": f"cluster.{part}.cpus",
        "Insufficient memory": f"cluster.{part}.memory",
        "Insufficient nvidia.com/gpu": f"cluster.{part}.gpus",
    }
    lower = [name for word, name in fields.items() if word in said]
    place = {
        "affinity": f"cluster.{part}.template.spec.nodeSelector and affinity",
        "selector": f"cluster.{part}.template.spec.nodeSelector and affinity",
        "taint": f"cluster.{part}.template.spec.tolerations",
        "persistentvolumeclaim": f"cluster.{part}.template.spec.volumes",
    }
    check = list(dict.fromkeys(name for word, name in place.items() if word in said.lower()))
    parts = [f"lower {' and '.join(lower)}"] * bool(lower) + [f"check {' and '.join(check)}"] * bool(check)
    return ", ".join([*parts, "or add nodes"])


def _short(text: str) -> str:
    """Return one line of at most 400 characters."""
    line = re.sub(r"\s+", " ", text).strip().rstrip(".")
    return line if len(line) <= 400 else f"{line[:399]}…"
