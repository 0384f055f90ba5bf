"""What pods that don't start are waiting for, in sentences that name the field to change."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from trainmaster_api.reasons import FailureClass

from .context import PlanContext
from .snapshot import PodView

IMAGE_PATIENCE_SECONDS = 60
# An image that has trained exists; a registry may be down for a while when a pod comes to a new node.
KNOWN_IMAGE_PATIENCE_SECONDS = 600
# The scheduler needs a moment; what it says in the first seconds is mostly about pods that are just going away.
SCHEDULER_SECONDS = 3

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
    reason: FailureClass
    message: str
    image: bool = False
    patience: float = 0.0


def waiting_for(context: PlanContext, pods: Sequence[PodView]) -> Waiting | None:
    """The most telling obstacle of some pods that run or are to run."""
    order = sorted(pods, key=lambda pod: (pod.role, pod.index or 0))
    for find in (_image, _configuration, _unschedulable):
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
    advice = f"check cluster.image and, for a private registry, cluster.{part}.template.imagePullSecrets"
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
    if name and f'secret "{name}" not found' in detail:
        text = (
            f"Pod {pod.name} waits for the Secret {name} that storage.credentialsSecret names, with the keys "
            f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: create it in namespace {context.job.metadata.namespace}, or "
            "correct storage.credentialsSecret."
        )
    else:
        part = "head" if pod.role == "head" else "workers"
        text = f"The container of pod {pod.name} can't be made: {detail}; check cluster.{part}.template."
    return Waiting(pod, FailureClass.INVALID_CONFIGURATION, text)


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
    text = f"No node has room for pod {pod.name} ({asks}): {said}; {_advice(said, part)}."
    return Waiting(pod, FailureClass.UNSCHEDULABLE, text)


def _advice(said: str, part: str) -> str:
    fields = {
        "Insufficient cpu": f"cluster.{part}.cpus",
        "Insufficient memory": f"cluster.{part}.memory",
        "Insufficient nvidia.com/gpu": f"cluster.{part}.gpus",
    }
    lower = [name for word, name in fields.items() if word in said]
    place = {
        "affinity": f"cluster.{part}.template.nodeSelector and affinity",
        "selector": f"cluster.{part}.template.nodeSelector and affinity",
        "taint": f"cluster.{part}.template.tolerations",
        "persistentvolumeclaim": f"cluster.{part}.template.volumes",
    }
    check = list(dict.fromkeys(name for word, name in place.items() if word in said.lower()))
    parts = [f"lower {' and '.join(lower)}"] * bool(lower) + [f"check {' and '.join(check)}"] * bool(check)
    return ", ".join([*parts, "or add nodes"])


def _short(text: str) -> str:
    """One line of at most 400 characters."""
    line = re.sub(r"\s+", " ", text).strip().rstrip(".")
    return line if len(line) <= 400 else f"{line[:399]}…"
