"""Startup policy: from an accepted job to an attempt whose pods are all there, and back there when a worker is lost."""

from __future__ import annotations

from trainmaster_api import names
from trainmaster_api.reasons import ConditionType, FailureClass, Reason

from .actions import CreatePod, EnsureSecret, EnsureService
from .attempts import Verdict, begin, end
from .context import Draft
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


def accept(draft: Draft) -> bool:
    """Say whether the specification is valid. True if it isn't: nothing else can be done then."""
    problems = draft.snapshot.problems
    if problems or draft.snapshot.job is None:
        text = "\n".join(str(problem) for problem in problems)
        draft.say(ConditionType.ACCEPTED, False, Reason.INVALID_SPEC, text[:32000])
        return True
    draft.say(ConditionType.ACCEPTED, True, Reason.SPEC_VALID)
    return False


def clear_away(draft: Draft) -> bool:
    """Delete what is left of earlier attempts. True while it is there: attempts don't overlap.

    A pod on a node that doesn't answer is not waited for: its attempt is fenced off from storage and from the new
    head.
    """
    open_attempt = draft.status.attempt if draft.live else draft.status.attempt + 1
    left = [pod for pod in draft.pods if pod.attempt < open_attempt]
    for pod in left:
        draft.delete(pod)
    waited = [pod for pod in left if not draft.overdue(pod)]
    if draft.live or not waited:
        return False
    text = f"Waiting for {len(waited)} pods of attempt {draft.status.attempt} to end, {waited[0].name} among them."
    draft.say(ConditionType.RUNNING, False, Reason.WAITING_FOR_OLD_PODS, text)
    return True


def start(draft: Draft) -> bool:
    """Create all pods of the next attempt at once. True if there is an obstacle."""
    if draft.live:
        return False
    attempt = draft.status.attempt + 1
    if _conflict(draft, attempt, fresh=True) or _forerunner(draft):
        return True
    if draft.snapshot.rejections and not _only_quota(draft):
        begin(draft, attempt, draft.now)
        return _rejected(draft)
    if draft.snapshot.rejections:
        return _rejected(draft)
    begin(draft, attempt, draft.now)
    return False


def provision(draft: Draft) -> bool:
    """Keep the open attempt's pods: create what is missing, replace workers, say what they wait for."""
    if _conflict(draft, draft.status.attempt, fresh=draft.written is None):
        return True
    if draft.snapshot.rejections:
        return _rejected(draft)
    head = draft.head
    if head and head.deleting:
        draft.say(ConditionType.RUNNING, False, Reason.STOPPED, "The head pod is being deleted: it saves and stops.")
        return False
    _create_missing(draft)
    _replace_workers(draft)
    return _say_provisioned(draft)


# --- obstacles -----------------------------------------------------------------------------------------------------


def _conflict(draft: Draft, attempt: int, fresh: bool) -> bool:
    """Somebody else has a name that the attempt needs: nothing of it is touched, and nothing is created beside it.

    A fresh attempt also waits for every pod that carries the job's label, as those of a deleted job of the same name
    do: the Service would lead to their head.
    """
    name, snapshot = draft.snapshot.name, draft.snapshot
    needed = {names.head_pod(name, attempt)}
    needed |= {names.worker_pod(name, attempt, i) for i in range(draft.job.spec.cluster.workers.count)}
    taken = [f"Pod {pod.name}" for pod in draft.foreign if pod.name in needed or (fresh and pod.role)]
    if snapshot.service_owner not in (None, snapshot.uid):
        taken.append(f"Service {names.head_service(name)}")
    taken += [f"{conflict.kind} {conflict.name}" for conflict in snapshot.conflicts]
    if not taken:
        if draft.reason(ConditionType.DEGRADED) == Reason.NAME_CONFLICT:
            draft.say(ConditionType.DEGRADED, False, Reason.HEALTHY)
        return False
    text = (
        f"{', '.join(sorted(set(taken))[:5])} belongs to somebody else, perhaps to a deleted job of the same name; "
        "it is left alone. Delete it, or give this job another name."
    )
    draft.say(ConditionType.DEGRADED, True, Reason.NAME_CONFLICT, text)
    draft.wake_in(CONFLICT_RETRY_SECONDS)
    return True


def _forerunner(draft: Draft) -> bool:
    age = draft.since(draft.snapshot.raw["metadata"].get("creationTimestamp"))
    if not draft.snapshot.secret_existed or draft.old.attempt or age >= FORERUNNER_SECONDS:
        return False
    draft.wake_in(FORERUNNER_SECONDS - age)
    return True


def _only_quota(draft: Draft) -> bool:
    return all("exceeded quota" in rejection.message for rejection in draft.snapshot.rejections)


def _rejected(draft: Draft) -> bool:
    """The API server refused a pod. A quota may have room later; anything else needs another specification."""
    rejection: Rejection = draft.snapshot.rejections[0]
    text = f"The API server refused pod {rejection.pod}: {rejection.message[:1000]}"
    if _only_quota(draft):
        advice = "; raise the quota of the namespace, or lower what cluster.workers asks for"
        draft.say(ConditionType.PROVISIONED, False, FailureClass.POD_REJECTED, text + advice)
        draft.wake_in(QUOTA_RETRY_SECONDS)
        return True
    end(draft, Verdict.failed(FailureClass.POD_REJECTED, text))
    decide(draft)
    return True


# --- pods ----------------------------------------------------------------------------------------------------------


def _create_missing(draft: Draft) -> None:
    """Pods without an object. In an attempt that is written down the head is never among them: its end is a result."""
    job, attempt = draft.job, draft.status.attempt
    if draft.snapshot.service_owner is None:
        draft.act(EnsureService(names.head_service(draft.snapshot.name)))
    if draft.written is None:
        draft.actions.insert(0, EnsureSecret(names.run_secret(draft.snapshot.name)))
    if draft.head is None:
        draft.act(CreatePod(names.head_pod(job.metadata.name, attempt), "head", attempt))
    for index in range(job.spec.cluster.workers.count):
        if index not in draft.workers:
            draft.act(CreatePod(names.worker_pod(job.metadata.name, attempt, index), "worker", attempt, index))


def _replace_workers(draft: Draft) -> None:
    """Workers that were taken away make room for others of the same name."""
    for pod in draft.workers.values():
        if not pod.ended or pod.deleting or not replaceable(draft, pod):
            continue
        age = draft.since(pod.created)
        if age < REPLACE_SECONDS:
            draft.wake_in(REPLACE_SECONDS - age)
        else:
            draft.delete(pod)


# --- what it waits for ---------------------------------------------------------------------------------------------


def _say_provisioned(draft: Draft) -> bool:
    desired = draft.job.spec.cluster.workers.count
    lost = _lost_workers(draft)
    pods = draft.current
    if not lost and len(pods) == desired + 1 and all(pod.ready for pod in pods):
        text = f"The head and {desired} workers are ready."
        draft.say(ConditionType.PROVISIONED, True, Reason.PODS_READY, text)
        _recovered(draft)
        where = (
            f"kubectl -n {draft.job.metadata.namespace} port-forward service/{names.head_service(draft.snapshot.name)}"
        )
        draft.set(dashboard=f"{where} {names.PORT_DASHBOARD}")
        return False
    wait = waiting_for(draft, [pod for pod in pods if not pod.ended and not pod.deleting])
    if wait:
        return _waits(draft, wait)
    _recovered(draft)
    if lost:
        text = f"{', '.join(lost[:5])} is being replaced; the attempt goes on."
        draft.say(ConditionType.PROVISIONED, False, Reason.REPLACING_WORKER, text)
    elif not draft.holds(ConditionType.PROVISIONED):  # a Ready that flickers changes nothing
        text = f"The pods of attempt {draft.status.attempt} are starting."
        draft.say(ConditionType.PROVISIONED, False, Reason.PODS_CREATED, text)
    return False


def _lost_workers(draft: Draft) -> list[str]:
    """Workers of a written attempt that are gone, going, or about to be replaced."""
    if draft.written is None:
        return []
    name, attempt = draft.snapshot.name, draft.status.attempt

    def is_lost(pod: PodView | None) -> bool:
        return pod is None or bool(pod.deleting) or pod.ended

    indices = range(draft.job.spec.cluster.workers.count)
    return [names.worker_pod(name, attempt, index) for index in indices if is_lost(draft.workers.get(index))]


def _waits(draft: Draft, wait: Waiting) -> bool:
    """Something stands in the way: say what, and fail if it won't go away by itself."""
    if wait.image:
        first_seen = draft.condition(ConditionType.DEGRADED)
        seen = first_seen if first_seen and first_seen.reason == FailureClass.IMAGE_PULL else None
        since = draft.since(seen.last_transition_time) if seen and seen.status == "True" else 0.0
        if since >= wait.patience:
            end(draft, Verdict.failed(FailureClass.IMAGE_PULL, wait.message, wait.pod))
            _recovered(draft)
            return decide(draft)
        draft.say(ConditionType.DEGRADED, True, FailureClass.IMAGE_PULL, wait.message)
        draft.wake_in(wait.patience - since)
    else:
        _recovered(draft)
    draft.say(ConditionType.PROVISIONED, False, wait.reason, wait.message)
    return False


def _recovered(draft: Draft) -> None:
    if draft.holds(ConditionType.DEGRADED):
        draft.say(ConditionType.DEGRADED, False, Reason.HEALTHY)
