"""While nothing moves the status says since when, and why where that is known."""

from __future__ import annotations

from typing import Any

from trainmaster_api.messages import TrainerState
from trainmaster_operator.policy.plan import write_delay

from .wrappers import Bench, at, clock, pods, progress, swap


def stepped(second: float, sent: float | None = None, step: int = 100, **fields: Any) -> Any:
    """A message whose last step was finished at a second, by the trainer's clock."""
    found = {"step": step, "total_steps": 1000, "eta_seconds": 90.0, **fields}
    return progress(step_time=clock(second), time=clock(second if sent is None else sent), **found)


def running() -> Bench:
    bench = Bench().started()
    bench.plan(10, pods(), progress=stepped(10))
    return bench


def test_a_step_time_is_in_the_status() -> None:
    assert running().status["progress"]["stepTime"] == clock(10)


def test_no_step_for_a_while_is_said_and_the_eta_goes() -> None:
    bench = running()
    assert bench.status["progress"]["eta"] == "1m30s"
    plan = bench.plan(24, pods(), progress=stepped(10, sent=24))
    assert bench.reason("Running") == "Training"
    assert plan.requeue_after == 1
    bench.plan(25, pods(), progress=stepped(10, sent=25))
    assert bench.is_true("Running")
    assert bench.reason("Running") == "NoRecentStep"
    assert bench.message("Running") == f"No step has been completed since {clock(10)} (step 100)."
    assert (bench.status["phase"], bench.status["reason"]) == ("Running", "NoRecentStep")
    assert bench.status["progress"]["eta"] == ""
    assert "etaSeconds" not in bench.status["progress"]


def test_the_cause_is_said_where_the_trainer_knows_it() -> None:
    bench = running()
    bench.plan(40, pods(), progress=stepped(10, sent=40, waiting="storage has not responded since 12:00:12Z"))
    assert bench.message("Running").endswith("(step 100): storage has not responded since 12:00:12Z.")


def test_a_pod_that_is_not_ready_is_named_with_its_node() -> None:
    bench = running()
    found = swap(pods(), 1, ready=False, ready_changed=clock(30))
    bench.plan(40, found, progress=stepped(10, sent=40))
    assert f"pod digits-1-w-0 on node node-1 has been NotReady since {clock(30)}" in bench.message("Running")


def test_a_pod_that_is_taken_from_a_dead_node_is_named() -> None:
    bench = running()
    found = swap(pods(), 2, ready=False, deleting=clock(90), disruption="DeletionByTaintManager")
    bench.plan(40, found, progress=stepped(10, sent=40))
    assert "pod digits-1-w-1 is being removed from node node-1 (DeletionByTaintManager)" in bench.message("Running")


def test_a_silent_driver_is_said() -> None:
    bench = running()
    bench.plan(26, pods(), progress=stepped(10), progress_received=at(10))
    assert bench.message("Running").endswith(f": the driver has not reported since {clock(10)}.")


def test_staleness_silent_driver_drops_old_cause() -> None:
    bench = running()
    bench.plan(40, pods(), progress=stepped(10, sent=12, waiting="storage is slow"), progress_received=at(12))
    assert "storage is slow" not in bench.message("Running")


def test_steps_that_come_again_are_said_once() -> None:
    bench = running()
    bench.plan(40, pods(), progress=stepped(10, sent=40))
    bench.plan(83, pods(), progress=stepped(82, step=101))
    assert (bench.reason("Running"), bench.message("Running")) == ("Training", "Training; steps resumed after 72 s.")
    assert bench.status["progress"]["eta"] == "1m30s"
    bench.plan(93, pods(), progress=stepped(92, step=140))
    assert bench.message("Running") == "Training."


def test_silence_costs_one_write_however_long_it_lasts() -> None:
    bench = running()
    before = bench.status
    first = bench.plan(25, pods(), progress=stepped(10), progress_received=at(10)).status
    assert write_delay(before, first, at(24), at(25)) == 0
    plan = bench.plan(5000, pods(), progress=stepped(10), progress_received=at(10))
    assert write_delay(first, plan.status, at(25), at(5000)) is None
    assert plan.requeue_after is None


def test_staleness_cause_found_later_is_written_at_once() -> None:
    bench = running()
    before = bench.plan(25, pods(), progress=stepped(10), progress_received=at(10)).status
    found = swap(pods(), 1, ready=False, ready_changed=clock(50))
    plan = bench.plan(51, found, progress=stepped(10), progress_received=at(10))
    assert "NotReady" in bench.message("Running")
    assert write_delay(before, plan.status, at(25), at(51)) == 0
    assert write_delay(before, plan.status, at(48), at(51)) == 7


def test_slow_steps_are_not_stale() -> None:
    """Two minutes a step: 900 steps are left in 30 hours."""
    bench = Bench().started()
    message = stepped(10, eta_seconds=900 * 120.0)
    bench.plan(10, pods(), progress=message)
    plan = bench.plan(130, pods(), progress=stepped(10, sent=130, eta_seconds=900 * 120.0))
    assert bench.reason("Running") == "Training"
    assert plan.requeue_after == 120
    bench.plan(250, pods(), progress=stepped(10, sent=250, eta_seconds=900 * 120.0))
    assert bench.reason("Running") == "NoRecentStep"


def test_clocks_that_differ_do_not_matter() -> None:
    """The trainer's clock is an hour behind."""
    bench = Bench().started()
    bench.plan(4000, pods(), progress=stepped(400), progress_received=at(4000))
    assert bench.reason("Running") == "Training"
    bench.plan(4015, pods(), progress=stepped(400, sent=415), progress_received=at(4015))
    assert bench.reason("Running") == "NoRecentStep"


def test_other_states_have_sentences_of_their_own() -> None:
    for state in (TrainerState.RECOVERING, TrainerState.FINISHING, TrainerState.STARTING, TrainerState.STOPPING):
        bench = running()
        bench.plan(100, pods(), progress=stepped(10, sent=100, state=state))
        assert bench.reason("Running") != "NoRecentStep"


def test_a_restarted_operator_gives_the_trainer_time_to_speak() -> None:
    bench = running()
    before = bench.status
    plan = bench.plan(600, pods(), listening_since=at(598))
    assert plan.status == before
    assert plan.requeue_after == 13
    bench.plan(613, pods(), listening_since=at(598))
    assert bench.reason("Running") == "NoRecentStep"
    assert f"since {clock(10)} (step 100): the driver has not reported" in bench.message("Running")


def test_a_message_without_step_times_is_a_sign_of_life() -> None:
    """From a trainer that doesn't send them."""
    bench = Bench().started()
    bench.plan(10, pods(), progress=progress(step=100))
    bench.plan(500, pods(), progress=progress(step=100))
    assert bench.reason("Running") == "Training"


# --- never backwards -----------------------------------------------------------------------------------------------


def test_progress_does_not_go_back_without_a_recovery() -> None:
    bench = Bench().started()
    bench.plan(10, pods(), progress=progress(step=500, total_steps=1000))
    bench.plan(20, pods(), progress=progress(step=100, total_steps=1000))
    assert (bench.status["progress"]["step"], bench.status["progress"]["percent"]) == (500, "50%")


def test_a_counted_recovery_takes_progress_back() -> None:
    bench = Bench().started()
    bench.plan(10, pods(), progress=progress(step=500, total_steps=1000))
    bench.plan(20, pods(), progress=progress(step=400, total_steps=1000, recoveries=1, lost_steps=100))
    assert bench.status["progress"]["step"] == 400
    bench.plan(30, pods(), progress=progress(step=390, total_steps=1000, recoveries=1, lost_steps=100))
    assert bench.status["progress"]["step"] == 400


def test_another_attempt_takes_progress_back() -> None:
    bench = Bench().started()
    bench.plan(10, pods(), progress=progress(step=500, total_steps=1000))
    bench.plan(100, pods()[1:])
    bench.plan(115)
    bench.plan(130, pods(2, 115), progress=progress(2, step=101, resumed_from_step=100))
    assert bench.status["progress"]["step"] == 101
