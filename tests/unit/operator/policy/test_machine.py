"""Whatever happens in whatever order: what always holds, and that a job always comes to its end.

A hypothesis state machine moves a cluster in memory: pods start, fail, are deleted, evicted, get stuck on dead nodes;
users suspend, resume and edit; strangers take names; watches lag; the operator dies between any two calls.
"""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from trainmaster_api import names
from trainmaster_api.messages import ExitCode, Outcome, TrainerState
from trainmaster_api.reasons import FailureClass
from trainmaster_api.status import Status
from trainmaster_operator.policy.format import format_time, parse_time

from .sim import Cluster, CrashError, Operator
from .wrappers import NAME, checkpoint, pod, progress, raw_job, said

MAX_RETRIES = 2
HEAD_ENDS: dict[str, tuple[int, str, str]] = {
    "complete": (ExitCode.COMPLETE, said(Outcome.COMPLETE, step=1000), "Completed"),
    "stalled": (ExitCode.FAILED, said(Outcome.FAILED, FailureClass.STALLED), "Error"),
    "user-error": (ExitCode.FAILED, said(Outcome.FAILED, FailureClass.USER_CODE_ERROR), "Error"),
    "gpu": (ExitCode.FAILED, said(Outcome.FAILED, FailureClass.GPU_FAULT), "Error"),
    "stopped": (ExitCode.STOPPED, said(Outcome.STOPPED, step=7), "Error"),
    "killed": (137, "", "Error"),
    "memory": (137, "", "OOMKilled"),
}
WORKER_ENDS: dict[str, tuple[int, str, str]] = {
    "memory": (ExitCode.FAILED, said(Outcome.FAILED, FailureClass.HOST_OUT_OF_MEMORY), "Error"),
    "gpu": (ExitCode.FAILED, said(Outcome.FAILED, FailureClass.GPU_FAULT), "Error"),
    "head-gone": (ExitCode.FAILED, said(Outcome.FAILED, FailureClass.HEAD_LOST), "Error"),
    "orderly": (ExitCode.STOPPED, said(Outcome.STOPPED), "Error"),
    "killed": (137, "", "Error"),
}


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster(raw_job(retries={"max": MAX_RETRIES}))
        self.operator = Operator(self.cluster)
        self.attempt = 0
        self.times: dict[str, str] = {}
        self.final: dict[str, Any] | None = None
        self.foreign: dict[str, str] = {}
        self.epochs = 10
        self.ever_whole: dict[int, bool] = {}

    # -- the operator -------------------------------------------------------------------------------------------
    @rule()
    def look(self) -> None:
        self.operator.reconcile()

    @rule(seconds=st.sampled_from([0, 15, 60]), start=st.booleans())
    def all_goes_well_for_a_while(self, seconds: int, start: bool) -> None:
        """The operator keeps up with time; pods start, if they do, but none of the deleted ones goes."""
        until = self.cluster.seconds + seconds
        while True:
            self.operator.catch_up()
            while self.operator.reconcile():
                self.operator.catch_up()
            if start:
                self.all_pods_start()
            if self.cluster.seconds >= until:
                return
            self.cluster.seconds += 5

    @rule(call=st.integers(1, 8), before=st.booleans())
    def look_and_die(self, call: int, before: bool) -> None:
        self.operator.calls, self.operator.crash_at, self.operator.before = 0, call, before
        try:
            self.operator.reconcile()
        except CrashError:
            self.cluster.say("the operator died")
            self.operator.restart()
        self.operator.crash_at = None

    @rule()
    def watches_deliver(self) -> None:
        self.operator.catch_up()

    @rule(seconds=st.sampled_from([0.5, 3.0, 11.0, 35.0, 120.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.cluster.seconds += seconds

    # -- pods ---------------------------------------------------------------------------------------------------
    def ours(self, **having: Any) -> list[str]:
        found = [name for name in self.cluster.pods if name not in self.foreign]
        return [n for n in found if all(getattr(self.cluster.pods[n], k) == v for k, v in having.items())]

    @rule(data=st.data())
    def pod_starts(self, data: st.DataObject) -> None:
        waiting = self.ours(ready=False, deleting="")
        if not waiting:
            return
        self.cluster.run_pod(data.draw(st.sampled_from(waiting)))

    @rule()
    def all_pods_start(self) -> None:
        for name in self.ours(ready=False, deleting=""):
            self.cluster.run_pod(name)

    @rule(data=st.data(), end=st.sampled_from(sorted(HEAD_ENDS)))
    def head_ends(self, data: st.DataObject, end: str) -> None:
        heads = [name for name in self.ours(role="head") if self.cluster.pods[name].node]
        if not heads:
            return
        code, message, reason = HEAD_ENDS[end]
        self.cluster.end_pod(data.draw(st.sampled_from(heads)), code, message, reason)

    @rule(data=st.data(), end=st.sampled_from(sorted(WORKER_ENDS)))
    def worker_ends(self, data: st.DataObject, end: str) -> None:
        workers = [name for name in self.ours(role="worker") if self.cluster.pods[name].node]
        if not workers:
            return
        code, message, reason = WORKER_ENDS[end]
        self.cluster.end_pod(data.draw(st.sampled_from(workers)), code, message, reason)

    @rule(data=st.data())
    def pod_is_evicted(self, data: st.DataObject) -> None:
        names_ = self.ours()
        if not names_:
            return
        self.cluster.end_pod(data.draw(st.sampled_from(names_)), 137, disruption="EvictionByEvictionAPI")

    @rule(data=st.data(), force=st.booleans())
    def user_deletes_a_pod(self, data: st.DataObject, force: bool) -> None:
        names_ = self.ours()
        if not names_:
            return
        name = data.draw(st.sampled_from(names_))
        if force:
            self.cluster.pods.pop(name)
        else:
            self.cluster.delete_pod(name, self.cluster.pods[name].uid, 75)

    @rule()
    def deleted_pods_go(self) -> None:
        for name in [name for name in self.ours() if self.cluster.pods[name].deleting]:
            self.cluster.finish_delete(name)

    @rule(data=st.data())
    def node_dies(self, data: st.DataObject) -> None:
        names_ = [name for name in self.ours() if self.cluster.pods[name].node]
        if not names_:
            return
        name = data.draw(st.sampled_from(names_))
        self.cluster.dead.add(self.cluster.pods[name].uid)
        self.cluster.delete_pod(name, self.cluster.pods[name].uid, 75)

    # -- people -------------------------------------------------------------------------------------------------
    @rule(wish=st.booleans())
    def user_suspends_or_resumes(self, wish: bool) -> None:
        if self.cluster.raw["spec"]["run"].get("suspend", False) != wish:
            self.cluster.edit_spec(suspend=wish)

    @rule()
    def user_raises_the_duration(self) -> None:
        if self.epochs < 40:
            self.epochs += 10
            self.cluster.raise_duration(self.epochs)

    @rule(quota=st.sampled_from([0, 1, 2, 3, 99]))
    def quota_changes(self, quota: int) -> None:
        self.cluster.quota = quota

    @rule(attempt=st.integers(1, 3), role=st.sampled_from(["head", "worker"]))
    def stranger_takes_a_name(self, attempt: int, role: str) -> None:
        found = pod(role, attempt, None if role == "head" else 0, owner_uid="stranger")
        if found.name in self.cluster.pods:
            return
        self.cluster.pods[found.name] = found
        self.foreign[found.name] = found.uid

    @precondition(lambda self: self.foreign)
    @rule()
    def strangers_leave(self) -> None:
        for name in self.foreign:
            del self.cluster.pods[name]
        self.foreign.clear()

    @rule(state=st.sampled_from(list(TrainerState)), step=st.integers(0, 900), back=st.integers(0, 1))
    def trainer_speaks(self, state: TrainerState, step: int, back: int) -> None:
        attempt = self.cluster.status.get("attempt", 0) - back
        if attempt < 1:
            return
        saved = checkpoint(step, attempt) if step > 500 else None
        self.operator.progress = progress(attempt, state, step=step, total_steps=1000, checkpoint=saved)

    @rule()
    def a_settled_job_is_left_alone(self) -> None:
        """Everything seen and everything done: the same look again does nothing. Tried on a copy of the world."""
        operator = copy.deepcopy(self.operator)
        operator.catch_up()
        moved = [operator.reconcile() for _ in range(12)]
        assert not moved[-1], "\n".join(operator.cluster.trace[-20:])
        calls = operator.calls
        operator.reconcile()
        # before the first attempt it asks again whether the Secret of a deleted namesake is gone
        assert operator.calls == calls or not operator.cluster.status.get("attempt")

    # -- what always holds --------------------------------------------------------------------------------------
    @invariant()
    def see_which_attempts_are_whole(self) -> None:
        ours = [found.attempt for name, found in self.cluster.pods.items() if name not in self.foreign]
        self.ever_whole |= {number: True for number in ours if ours.count(number) == 3}

    @invariant()
    def attempts_only_grow(self) -> None:
        attempt = self.cluster.status.get("attempt", 0)
        assert attempt >= self.attempt
        self.attempt = attempt

    @invariant()
    def the_end_is_final(self) -> None:
        ends = {c["type"] for c in self.conditions() if c["type"] in ("Complete", "Failed") and c["status"] == "True"}
        assert len(ends) <= 1
        if self.final is not None and not ends and self.final["ends"] == {"Complete"}:
            assert self.epochs > self.final["epochs"], "complete is final unless the duration is raised"
            self.final = None
        if self.final is not None:
            assert ends == self.final["ends"]
            assert self.cluster.status["completionTime"] == self.final["time"]
            assert self.cluster.made == self.final["made"], "a pod was created after the end"
        elif ends:
            epochs = int(self.cluster.status["attempts"][-1]["duration"].removesuffix("ep"))
            final = {"ends": ends, "time": self.cluster.status["completionTime"], "made": self.cluster.made}
            self.final = {**final, "epochs": epochs}

    @invariant()
    def attempts_do_not_overlap(self) -> None:
        heads = [p for p in self.cluster.pods.values() if p.role == "head" and p.name not in self.foreign]
        alive = [p for p in heads if not p.ended and not p.deleting]
        assert len(alive) <= 1, alive
        newest = max((p.attempt for p in heads), default=0)
        for old in (p for p in self.cluster.pods.values() if p.name not in self.foreign and p.attempt < newest):
            until = parse_time(old.deleting)
            assert until is not None, f"{old.name} runs beside attempt {newest}"
            assert self.cluster.now >= until + timedelta(seconds=30)

    @invariant()
    def strangers_are_untouched(self) -> None:
        for name, uid in self.foreign.items():
            assert self.cluster.pods[name].uid == uid
            assert not self.cluster.pods[name].deleting

    @invariant()
    def budget_is_kept(self) -> None:
        status = self.cluster.status
        assert status.get("restarts", {}).get("counted", 0) <= MAX_RETRIES
        counted = [
            r for r in status.get("attempts", []) if r.get("failureClass") in ("Stalled", "HeadLost", "WorkerLost")
        ]
        assert len(counted) <= MAX_RETRIES + 1

    @invariant()
    def pods_of_an_incomplete_attempt_are_not_in_the_status(self) -> None:
        """What is written as an attempt had all its pods at once, so a missing one is a lost one."""
        status = self.cluster.status
        record = next((r for r in status.get("attempts", []) if r["attempt"] == status.get("attempt")), None)
        if record and not record.get("endTime") and status.get("waitingSince"):
            assert self.ever_whole.get(record["attempt"]), "a record of an attempt that never was whole"

    @invariant()
    def only_known_names(self) -> None:
        for name, found in self.cluster.pods.items():
            if found.role == "head":
                assert name == names.head_pod(NAME, found.attempt)
            else:
                assert found.index in (0, 1)

    @invariant()
    def status_is_valid_and_its_times_are_true(self) -> None:
        if self.cluster.status:
            status = Status.model_validate(self.cluster.status)
            assert all(c.last_transition_time <= format_time(self.cluster.now) for c in status.conditions)
            ended = [r.end_time is not None for r in status.attempts]
            assert all(ended[:-1]), "only the newest attempt is open"
            numbers = [r.attempt for r in status.attempts]
            assert numbers == sorted(set(numbers))

    def conditions(self) -> list[dict[str, Any]]:
        return list(self.cluster.status.get("conditions") or [])

    # -- that it ends -------------------------------------------------------------------------------------------
    def teardown(self) -> None:
        """Nobody interferes any more: the job trains to its end, whatever state it was left in."""
        self.cluster.edit_spec(suspend=False)
        # just enough; pods on dead nodes count for as long as their objects exist
        self.cluster.quota = 3 + sum(pod.uid in self.cluster.dead for pod in self.cluster.pods.values())
        for name in self.foreign:
            del self.cluster.pods[name]
        self.foreign.clear()
        for _ in range(200):
            self.operator.catch_up()
            moved = self.operator.reconcile()
            if self.finished() and not moved:
                if self.is_complete():
                    assert self.cluster.status["attempts"][-1]["duration"] == f"{self.epochs}ep"
                return
            self.cluster.seconds += 1 if moved else max(1.0, self.operator.requeue or 1.0)
            for name in [name for name, p in self.cluster.pods.items() if p.deleting]:
                self.cluster.finish_delete(name)
            self.all_pods_start_alone()
        raise AssertionError(f"no end: {self.cluster.status}\n" + "\n".join(self.cluster.trace[-30:]))

    def all_pods_start_alone(self) -> None:
        for name in self.ours(ready=False, deleting=""):
            self.cluster.run_pod(name)
        attempt = self.cluster.status.get("attempt", 0)
        pods = [p for p in self.cluster.pods.values() if p.attempt == attempt and p.ready and not p.deleting]
        if len(pods) == 3:
            self.cluster.end_pod(names.head_pod(NAME, attempt), *HEAD_ENDS["complete"])

    def is_complete(self) -> bool:
        return any(c["type"] == "Complete" and c["status"] == "True" for c in self.conditions())

    def finished(self) -> bool:
        return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in self.conditions())


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
