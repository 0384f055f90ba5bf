"""Startup policy: from an accepted job to an attempt whose pods all exist, and back to that when a worker is lost."""

from __future__ import annotations

from trainmaster_api import names
from trainmaster_api.reasons import ConditionType, FailureClass, Reason

from . import all_or_nothing
from .actions import CreatePod, EnsureSecret, EnsureService
from .attempts import Verdict, begin, end, say_starting
from .context import PlanContext
from .failure_policy import decide, replaceable
from .snapshot import PodView
from .waiting import Waiting, waiting_for

CONFLICT_RETRY_SECONDS = 30
# A Secret that exists before the first pod may be that of a deleted job of the same name, which the garbage collector
# is about to delete: pods that mounted it would hold the wrong one.
FORERUNNER_SECONDS = 5
# A worker that dies at birth is not replaced faster than this.
REPLACE_SECONDS = 10


def accept(context: PlanContext) -> bool:
    """Set Accepted. True if the spec is invalid: nothing else can be done then."""
    problems = context.snapshot.problems
    if problems or context.snapshot.job is None:
        text = "\n".join(str(problem) for problem in problems)
        context.set_condition(ConditionType.ACCEPTED, False, Reason.INVALID_SPEC, text[:32000])
        return True
    context.set_condition(ConditionType.ACCEPTED, True, Reason.SPEC_VALID)
    return False


def clear_away(context: PlanContext) -> bool:
    """Delete what is left of earlier attempts. True while it exists: attempts don't overlap.

    A pod on a node that doesn't answer is not waited for: its attempt is fenced off from storage and from the new
    head.
    """
    open_attempt = context.status.attempt if context.live else context.status.attempt + 1
    left = [pod for pod in context.pods if pod.attempt < open_attempt]
    for pod in left:
        context.delete(pod)
    waited = [pod for pod in left if not context.overdue(pod)]
    if context.live or not waited:
        return False
    count = "pod" if len(waited) == 1 else f"{len(waited)} pods, among them"
    text = f"Waiting for {count} {waited[0].name} of attempt {context.status.attempt} to terminate."
    context.set_condition(ConditionType.RUNNING, False, Reason.WAITING_FOR_OLD_PODS, text)
    return True


def start(context: PlanContext) -> bool:
    """Create all pods of the next attempt at once. True if there is an obstacle."""
    if context.live:
        return False
    attempt = context.status.attempt + 1
    if _conflict(context, attempt, fresh=True) or _forerunner(context):
        return True
    if context.snapshot.rejections:
        return all_or_nothing.refused(context)
    if all_or_nothing.due_later(context):
        return True
    begin(context, attempt, context.now)
    return False


def provision(context: PlanContext) -> bool:
    """Maintain the open attempt's pods: create missing ones, replace workers, and report what they wait for."""
    if _conflict(context, context.status.attempt, fresh=context.written is None):
        return True
    if context.snapshot.rejections:
        return all_or_nothing.refused(context)
    head = context.head
    if head and head.deleting:
        text = "The head pod is being deleted; it saves a checkpoint, then stops."
        context.set_condition(ConditionType.RUNNING, False, Reason.STOPPED, text)
        return False
    if all_or_nothing.missing(context) and all_or_nothing.due_later(context):
        return True
    _create_missing(context)
    if context.status.waiting_since is not None:
        context.set(waiting_since=None)
        if not all_or_nothing.has_been_whole(context):
            say_starting(context)
    _replace_workers(context)
    return _say_provisioned(context)


# --- obstacles -----------------------------------------------------------------------------------------------------


def _conflict(context: PlanContext, attempt: int, fresh: bool) -> bool:
    """Report that a required name is taken: that object is left unmodified, and nothing is created.

    A fresh attempt also waits for every other pod that carries the job's label, as those of a deleted job of the same
    name do: they may hold what the new pods need, and the volumes that these write to.
    """
    name, snapshot = context.snapshot.name, context.snapshot
    needed = {names.head_pod(name, attempt)}
    needed |= {names.worker_pod(name, attempt, i) for i in range(context.job.spec.cluster.workers.count)}
    taken = [f"Pod {pod.name}" for pod in context.foreign if pod.name in needed or (fresh and pod.role)]
    taken += [f"{conflict.kind} {conflict.name}" for conflict in snapshot.conflicts]
    if not taken:
        if context.reason(ConditionType.DEGRADED) == Reason.NAME_CONFLICT:
            context.set_condition(ConditionType.DEGRADED, False, Reason.HEALTHY)
        return False
    text = (
        f"{', '.join(sorted(set(taken))[:5])}: not owned by this TrainingJob, perhaps left over from a deleted one of "
        "the same name. It is left unmodified; delete it or rename this job."
    )
    context.set_condition(ConditionType.DEGRADED, True, Reason.NAME_CONFLICT, text)
    context.wake_in(CONFLICT_RETRY_SECONDS)
    return True


def _forerunner(context: PlanContext) -> bool:
    age = context.since(context.snapshot.raw["metadata"].get("creationTimestamp"))
    if not context.snapshot.secret_existed or context.old.attempt or age >= FORERUNNER_SECONDS:
        return False
    context.wake_in(FORERUNNER_SECONDS - age)
    return True


# --- pods ----------------------------------------------------------------------------------------------------------


def _create_missing(context: PlanContext) -> None:
    """Create the missing pods. The head of an attempt in the status is never among them: its end is a result."""
    job, attempt = context.job, context.status.attempt
    if not context.snapshot.heads_service:
        context.act(EnsureService(names.HEADS_SERVICE))
    if context.written is None:
        context.actions.insert(0, EnsureSecret(names.run_secret(context.snapshot.name)))
    if context.head is None:
        context.act(CreatePod(names.head_pod(job.metadata.name, attempt), "head", attempt))
    for index in range(job.spec.cluster.workers.count):
        if index not in context.workers:
            context.act(CreatePod(names.worker_pod(job.metadata.name, attempt, index), "worker", attempt, index))


def _replace_workers(context: PlanContext) -> None:
    """Delete workers that were lost to a disruption, so that others of the same name can be created."""
    for pod in context.workers.values():
        if not pod.ended or pod.deleting or not replaceable(context, pod):
            continue
        age = context.since(pod.created)
        if age < REPLACE_SECONDS:
            context.wake_in(REPLACE_SECONDS - age)
        else:
            context.delete(pod)


# --- what pods wait for ---------------------------------------------------------------------------------------------


def _say_provisioned(context: PlanContext) -> bool:
    desired = context.job.spec.cluster.workers.count
    lost = _lost_workers(context)
    pods = context.current
    if not lost and len(pods) == desired + 1 and all(pod.ready for pod in pods):
        text = f"The head and {desired} workers are ready."
        context.set_condition(ConditionType.PROVISIONED, True, Reason.PODS_READY, text)
        _recovered(context)
        pod = names.head_pod(context.snapshot.name, context.status.attempt)
        where = f"kubectl -n {context.job.metadata.namespace} port-forward pod/{pod}"
        context.set(dashboard=f"{where} {names.PORT_DASHBOARD}")
        return False
    wait = waiting_for(context, [pod for pod in pods if not pod.ended and not pod.deleting])
    if wait:
        return _waits(context, wait)
    _recovered(context)
    if lost:
        text = f"{', '.join(lost[:5])} is being replaced within attempt {context.status.attempt}."
        context.set_condition(ConditionType.PROVISIONED, False, Reason.REPLACING_WORKER, text)
    elif not context.holds(ConditionType.PROVISIONED):  # a Ready that flickers changes nothing
        text = f"The pods of attempt {context.status.attempt} are starting."
        context.set_condition(ConditionType.PROVISIONED, False, Reason.PODS_CREATED, text)
    return False


def _lost_workers(context: PlanContext) -> list[str]:
    """Return the workers of a recorded attempt that are gone, terminating, or about to be replaced."""
    if context.written is None:
        return []
    name, attempt = context.snapshot.name, context.status.attempt

    def is_lost(pod: PodView | None) -> bool:
        return pod is None or bool(pod.deleting) or pod.ended

    indices = range(context.job.spec.cluster.workers.count)
    return [names.worker_pod(name, attempt, index) for index in indices if is_lost(context.workers.get(index))]


def _waits(context: PlanContext, wait: Waiting) -> bool:
    """Report what pods wait for, and end the attempt if waiting won't help."""
    if wait.reason is FailureClass.UNSCHEDULABLE and all_or_nothing.unfit(context):
        context.set_condition(ConditionType.PROVISIONED, False, wait.reason, wait.message)
        return True
    if wait.image:
        first_seen = context.condition(ConditionType.DEGRADED)
        seen = first_seen if first_seen and first_seen.reason == FailureClass.IMAGE_PULL else None
        since = context.since(seen.last_transition_time) if seen and seen.status == "True" else 0.0
        if since >= wait.patience:
            end(context, Verdict.failed(FailureClass.IMAGE_PULL, wait.message, wait.pod))
            _recovered(context)
            return decide(context)
        context.set_condition(ConditionType.DEGRADED, True, FailureClass.IMAGE_PULL, wait.message)
        context.wake_in(wait.patience - since)
    else:
        _recovered(context)
    context.set_condition(ConditionType.PROVISIONED, False, wait.reason, wait.message)
    return False


def _recovered(context: PlanContext) -> None:
    if context.holds(ConditionType.DEGRADED) and context.reason(ConditionType.DEGRADED) != Reason.CHECKPOINT_NOT_READ:
        context.set_condition(ConditionType.DEGRADED, False, Reason.HEALTHY)
