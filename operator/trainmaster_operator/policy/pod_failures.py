"""What the kubelet and the node controller say about the end of a pod that said nothing itself."""

from __future__ import annotations

from trainmaster_api.reasons import FailureClass

from .snapshot import INIT_FAILED, PodView

# Reasons of the DisruptionTarget condition and of status.reason.
_NODE = {"DeletionByTaintManager", "DeletionByPodGC", "NodeLost"}
_TAKEN = {
    "PreemptionByScheduler": "preempted by a pod of higher priority",
    "EvictionByEvictionAPI": "evicted (node drain)",
    "TerminationByKubelet": "evicted by its node",
    "Evicted": "evicted by its node",
    "Preempting": "preempted by a critical pod of its node",
    "Terminated": "terminated by the shutdown of its node",
    "NodeShutdown": "terminated by the shutdown of its node",
    "Shutdown": "terminated by the shutdown of its node",
}  # fmt: skip
# Refusals of a kubelet that had given the room to another pod in the meantime.
_REFUSED = ("OutOf", "UnexpectedAdmissionError", "NodeAffinity", "TopologyAffinityError", "NodePorts")
# Evictions that the pod brought upon itself: the same happens to the next one.
_OWN_FAULT = ("exceeds the limit", "exceeds the total limit", "exceeded its local ephemeral storage limit")
_CANT_START = {"StartError", "ContainerCannotRun", "RunContainerError"}


def disruption_of(pod: PodView) -> tuple[FailureClass, str] | None:
    """Return why the pod was disrupted, if it was; None if it ended by itself."""
    said = f": {pod.message}" if pod.message else ""
    if pod.reason == "Evicted" and any(part in pod.message for part in _OWN_FAULT):
        lost = FailureClass.HEAD_LOST if pod.role == "head" else FailureClass.WORKER_LOST
        return lost, f"Pod {pod.name} was evicted because it filled a volume{said}"
    if pod.disruption in _NODE or pod.reason in _NODE:
        return FailureClass.NODE_LOST, f"Pod {pod.name} was on node {pod.node or '?'}, which is unreachable."
    for word in (pod.reason, pod.disruption):
        if word in _TAKEN:
            return FailureClass.PREEMPTED, f"Pod {pod.name} was {_TAKEN[word]}{said}"
    if pod.reason.startswith(_REFUSED):
        return FailureClass.PREEMPTED, f"Pod {pod.name} was rejected by node {pod.node or '?'} ({pod.reason}){said}"
    if pod.ended and (pod.exit is None or pod.exit.reason == "ContainerStatusUnknown"):
        return FailureClass.NODE_LOST, f"Node {pod.node or '?'} lost pod {pod.name}{said}"
    return None


def cause_of_exit(pod: PodView, memory: str) -> tuple[FailureClass | None, str]:
    """Return class and message for a container that ended without an exit message; no class if unknown.

    Args:
        pod: A pod whose container ended.
        memory: Its memory limit, for the message.
    """
    ended = pod.exit
    assert ended is not None
    part = "head" if pod.role == "head" else "workers"
    if ended.reason == "OOMKilled":
        text = f"Pod {pod.name} reached its memory limit of {memory}; raise cluster.{part}.memory."
        return FailureClass.HOST_OUT_OF_MEMORY, text
    if ended.reason == INIT_FAILED:
        return None, f"Pod {pod.name}: {ended.message} with exit code {ended.code}{_signal(ended.code)}."
    if ended.reason in _CANT_START or ended.code in (126, 127, 128):
        detail = f": {ended.message[:300]}" if ended.message else ""
        text = f"The container of pod {pod.name} can't start (exit code {ended.code}){detail}; check cluster.image."
        return FailureClass.INVALID_CONFIGURATION, text
    return None, f"Pod {pod.name} terminated without a result, exit code {ended.code}{_signal(ended.code)}."


def _signal(code: int) -> str:
    return {137: " (killed)", 139: " (segmentation fault)", 143: " (SIGTERM)"}.get(code, "")
