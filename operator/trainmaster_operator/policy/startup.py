"""Startup policy: from an accepted job to an attempt whose pods are all there, and back there when a worker is lost."""

from __future__ import annotations

from trainmaster_api import names
from trainmaster_api.reasons import ConditionType, FailureClass, Reason

from .actions import CreatePod, EnsureSecret, EnsureService
from .attempts import Verdict, begin, end
from .context import PlanContext
from .failure_policy import decide, replaceable
from .snapshot import PodView, Rejection
from .waiting import Waiting, waiting_for

CONFLICT_RETRY_SECONDS = 30
QUOTA_RETRY_SECONDS = 15
# A Secret that is there before the first pod may be that of a deleted job of the same name, which the garbage
# collector is about to delete: pods that mounted it would hold the wrong one.
FORERUNNER_SECONDS = 5
# A worker that dies at birth is not replaced faster than this.
REPLACE_SECONDS = 10


def accept(context: PlanContext) -> bool:
    """Say whether the specification is valid. True if it isn't: nothing else can be done then."""
    problems = context.snapshot.problems
    if problems or context.snapshot.job is None:
        text = "\n".join(str(problem) for problem in problems)
        context.say(ConditionType.ACCEPTED, False, Reason.INVALID_SPEC, text[:32000])
        return True
    context.say(ConditionType.ACCEPTED, True, Reason.SPEC_VALID)
    return False


def clear_away(context: PlanContext) -> bool:
    """Delete what is left of earlier attempts. True while it is there: attempts don't overlap.

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
    text = f"Waiting for {len(waited)} pods of attempt {context.status.attempt} to end, {waited[0].name} among them."
    context.say(ConditionType.RUNNING, False, Reason.WAITING_FOR_OLD_PODS, text)
    return True


def start(context: PlanContext) -> bool:
    """Create all pods of the next attempt at once. True if there is an obstacle."""
    if context.live:
        return False
    attempt = context.status.attempt + 1
    if _conflict(context, attempt, fresh=True) or _forerunner(context):
        return True
    if context.snapshot.rejections and not _only_quota(context):
        begin(context, attempt, context.now)
        return _rejected(context)
    if context.snapshot.rejections:
        return _rejected(context)
    begin(context, attempt, context.now)
    return False


def provision(context: PlanContext) -> bool:
    """Keep the open attempt's pods: create what is missing, replace workers, say what they wait for."""
    if _conflict(context, context.status.attempt, fresh=context.written is None):
        return True
    if context.snapshot.rejections:
        return _rejected(context)
    head = context.head
    if head and head.deleting:
        context.say(ConditionType.RUNNING, False, Reason.STOPPED, "The head pod is being deleted: it saves and stops.")
        return False
    _create_missing(context)
    _replace_workers(context)
    return _say_provisioned(context)


# --- obstacles -----------------------------------------------------------------------------------------------------


def _conflict(context: PlanContext, attempt: int, fresh: bool) -> bool:
    """Somebody else has a name that the attempt needs: nothing of it is touched, and nothing is created beside it.

    A fresh attempt also waits for every pod that carries the job's label, as those of a deleted job of the same name
    do: the Service would lead to their head.
    """
    name, snapshot = context.snapshot.name, context.snapshot
    needed = {names.head_pod(name, attempt)}
    needed |= {names.worker_pod(name, attempt, i) for i in range(context.job.spec.cluster.workers.count)}
    taken = [f"Pod {pod.name}" for pod in context.foreign if pod.name in needed or (fresh and pod.role)]
    if snapshot.service_owner not in (None, snapshot.uid):
        taken.append(f"Service {names.head_service(name)}")
    taken += [f"{conflict.kind} {conflict.name}" for conflict in snapshot.conflicts]
    if not taken:
        if context.reason(ConditionType.DEGRADED) == Reason.NAME_CONFLICT:
            context.say(ConditionType.DEGRADED, False, Reason.HEALTHY)
        return False
    text = (
        f"{', '.join(sorted(set(taken))[:5])} belongs to somebody else, perhaps to a deleted job of the same name; "
        "it is left alone. Delete it, or give this job another name."
    )
    context.say(ConditionType.DEGRADED, True, Reason.NAME_CONFLICT, text)
    context.wake_in(CONFLICT_RETRY_SECONDS)
    return True


def _forerunner(context: PlanContext) -> bool:
    age = context.since(context.snapshot.raw["metadata"].get("creationTimestamp"))
    if not context.snapshot.secret_existed or context.old.attempt or age >= FORERUNNER_SECONDS:
        return False
    context.wake_in(FORERUNNER_SECONDS - age)
    return True


def _only_quota(context: PlanContext) -> bool:
    return all("exceeded quota" in rejection.message for rejection in context.snapshot.rejections)


def _rejected(context: PlanContext) -> bool:
    """The API server refused a pod. A quota may have room later; anything else needs another specification."""
    rejection: Rejection = context.snapshot.rejections[0]
    text = f"The API server refused pod {rejection.pod}: {rejection.message[:1000]}"
    if _only_quota(context):
        advice = "; raise the quota of the namespace, or lower what cluster.workers asks for"
        context.say(ConditionType.PROVISIONED, False, FailureClass.POD_REJECTED, text + advice)
        context.wake_in(QUOTA_RETRY_SECONDS)
        return True
    end(context, Verdict.failed(FailureClass.POD_REJECTED, text))
    decide(context)
    return True


# --- pods ----------------------------------------------------------------------------------------------------------


def _create_missing(context: PlanContext) -> None:
    """Pods without an object. In an attempt that is written down the head is never among them: its end is a result."""
    job, attempt = context.job, context.status.attempt
    if context.snapshot.service_owner is None:
        context.act(EnsureService(names.head_service(context.snapshot.name)))
    if context.written is None:
        context.actions.insert(0, EnsureSecret(names.run_secret(context.snapshot.name)))
    if context.head is None:
        context.act(CreatePod(names.head_pod(job.metadata.name, attempt), "head", attempt))
    for index in range(job.spec.cluster.workers.count):
        if index not in context.workers:
            context.act(CreatePod(names.worker_pod(job.metadata.name, attempt, index), "worker", attempt, index))


def _replace_workers(context: PlanContext) -> None:
    """Workers that were taken away make room for others of the same name."""
    for pod in context.workers.values():
        if not pod.ended or pod.deleting or not replaceable(context, pod):
            continue
        age = context.since(pod.created)
        if age < REPLACE_SECONDS:
            context.wake_in(REPLACE_SECONDS - age)
        else:
            context.delete(pod)


# --- what it waits for ---------------------------------------------------------------------------------------------


def _say_provisioned(context: PlanContext) -> bool:
    desired = context.job.spec.cluster.workers.count
    lost = _lost_workers(context)
    pods = context.current
    if not lost and len(pods) == desired + 1 and all(pod.ready for pod in pods):
        text = f"The head and {desired} workers are ready."
        context.say(ConditionType.PROVISIONED, True, Reason.PODS_READY, text)
        _recovered(context)
        service = names.head_service(context.snapshot.name)
        where = f"kubectl -n {context.job.metadata.namespace} port-forward service/{service}"
        context.set(dashboard=f"{where} {names.PORT_DASHBOARD}")
        return False
    wait = waiting_for(context, [pod for pod in pods if not pod.ended and not pod.deleting])
    if wait:
        return _waits(context, wait)
    _recovered(context)
    if lost:
        text = f"{', '.join(lost[:5])} is being replaced; the attempt goes on."
        context.say(ConditionType.PROVISIONED, False, Reason.REPLACING_WORKER, text)
    elif not context.holds(ConditionType.PROVISIONED):  # a Ready that flickers changes nothing
        text = f"The pods of attempt {context.status.attempt} are starting."
        context.say(ConditionType.PROVISIONED, False, Reason.PODS_CREATED, text)
    return False


def _lost_workers(context: PlanContext) -> list[str]:
    """Workers of a written attempt that are gone, going, or about to be replaced."""
    if context.written is None:
        return []
    name, attempt = context.snapshot.name, context.status.attempt

    def is_lost(pod: PodView | None) -> bool:
        return pod is None or bool(pod.deleting) or pod.ended

    indices = range(context.job.spec.cluster.workers.count)
    return [names.worker_pod(name, attempt, index) for index in indices if is_lost(context.workers.get(index))]


def _waits(context: PlanContext, wait: Waiting) -> bool:
    """Something stands in the way: say what, and fail if it won't go away by itself."""
    if wait.image:
        first_seen = context.condition(ConditionType.DEGRADED)
        seen = first_seen if first_seen and first_seen.reason == FailureClass.IMAGE_PULL else None
        since = context.since(seen.last_transition_time) if seen and seen.status == "True" else 0.0
        if since >= wait.patience:
            end(context, Verdict.failed(FailureClass.IMAGE_PULL, wait.message, wait.pod))
            _recovered(context)
            return decide(context)
        context.say(ConditionType.DEGRADED, True, FailureClass.IMAGE_PULL, wait.message)
        context.wake_in(wait.patience - since)
    else:
        _recovered(context)
    context.say(ConditionType.PROVISIONED, False, wait.reason, wait.message)
    return False


def _recovered(context: PlanContext) -> None:
    if context.holds(ConditionType.DEGRADED):
        context.say(ConditionType.DEGRADED, False, Reason.HEALTHY)
