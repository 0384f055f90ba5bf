"""loop.duration that is raised: on a job that trains, and on one that is complete."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from trainmaster_api.messages import ExitCode, Outcome
from trainmaster_api.reasons import FailureClass

from .wrappers import Bench, checkpoint, clock, created, deleted, ended, pods, progress, said, swap

NEXT = ["digits-2-head", "digits-2-w-0", "digits-2-w-1"]
DONE = ended(0, said(Outcome.COMPLETE, step=1000, test_metrics={"accuracy": 0.9}, model_uri="s3://m"))


def training(duration: str = "10ep", **run: Any) -> Bench:
    bench = Bench(**run)
    raise_to(bench, duration)
    return bench.running(checkpoint=checkpoint(100))


def raise_to(bench: Bench, duration: str) -> None:
    bench.raw["spec"]["training"]["loop"] = {"duration": duration}


def complete(bench: Bench, second: float = 100) -> Bench:
    bench.plan(second, swap(pods(), 0, exit=DONE))
    assert bench.is_true("Complete")
    return bench


def test_a_live_attempt_saves_and_the_next_one_goes_on() -> None:
    bench = training(retries={"max": 0})
    raise_to(bench, "30ep")
    plan = bench.plan(20, pods(), progress=progress(step=150))
    assert deleted(plan) == ["digits-1-head"]
    assert plan.actions[0].grace == 75  # type: ignore[union-attr]
    assert bench.reason("Running") == "DurationExtended"
    saving = swap(pods(), 0, deleting=clock(95))
    assert bench.plan(22, saving, progress=progress(step=150)).actions == ()
    over = swap(saving, 0, exit=ended(ExitCode.STOPPED, said(Outcome.STOPPED, step=160)))
    bench.plan(25, over)
    assert (bench.record()["result"], bench.record().get("failureClass")) == ("Extended", None)
    assert "to continue to 30ep" in bench.record()["message"]
    bench.plan(26, over)
    plan = bench.plan(27)
    assert created(plan) == NEXT
    assert bench.record(2)["duration"] == "30ep"
    assert bench.status["restarts"] == {"total": 1, "counted": 0, "recoveries": 0}
    assert not bench.is_true("Suspended")


def test_the_new_attempt_is_not_stopped_again() -> None:
    bench = training()
    raise_to(bench, "30ep")
    bench.plan(20, swap(pods(), 0, exit=ended(ExitCode.STOPPED, said(Outcome.STOPPED, step=160))))
    bench.plan(21)
    assert deleted(bench.plan(40, pods(2, 21, duration="30ep"), progress=progress(2, step=200))) == []


def test_a_complete_job_becomes_live_again() -> None:
    bench = complete(training())
    assert bench.status["testMetrics"] == {"accuracy": 0.9}
    raise_to(bench, "30ep")
    left = swap(pods(), 0, exit=DONE)[:1]
    plan = bench.plan(500, left)
    assert deleted(plan) == ["digits-1-head"]
    assert not bench.is_true("Complete")
    assert bench.reason("Complete") == "DurationExtended"
    assert "raised from 10ep to 30ep; training resumes from step 100" in bench.message("Complete")
    assert [event.reason for event in plan.events if event.type == "Normal"] == ["DurationExtended"]
    assert "completionTime" not in bench.status
    assert "testMetrics" not in bench.status or bench.status["testMetrics"] == {}
    assert created(bench.plan(501)) == NEXT
    assert bench.status["startTime"] == clock(501), "the clock of activeDeadlineSeconds starts again"
    assert bench.status["phase"] == "Starting"


def test_it_can_be_complete_a_second_time() -> None:
    bench = complete(training())
    raise_to(bench, "30ep")
    bench.plan(500)
    bench.plan(600, swap(pods(2, 500, duration="30ep"), 0, exit=DONE))
    assert bench.is_true("Complete")
    assert bench.status["completionTime"] == clock(600)
    assert bench.plan(700, swap(pods(2, 500), 0, exit=DONE)[:1]).actions == ()


def test_a_deadline_of_long_ago_does_not_end_it() -> None:
    bench = complete(training(activeDeadlineSeconds=600))
    raise_to(bench, "30ep")
    bench.plan(5000)
    assert not bench.is_true("Failed")
    assert bench.status["attempt"] == 2


def test_an_extended_job_is_not_expired() -> None:
    bench = complete(training(ttlSecondsAfterFinished=60))
    raise_to(bench, "30ep")
    assert created(bench.plan(500)) == NEXT


def test_a_failed_job_stays_failed() -> None:
    bench = training()
    failure = ended(1, said(Outcome.FAILED, FailureClass.DATA_ERROR))
    bench.plan(100, swap(pods(), 0, exit=failure))
    raise_to(bench, "30ep")
    plan = bench.settle(500, swap(pods(), 0, exit=failure)[:1])
    assert bench.is_true("Failed")
    assert plan.actions == ()


@pytest.mark.parametrize("duration", ["10ep", "9ep", "20step"])
def test_what_is_no_more_than_before_changes_nothing(duration: str) -> None:
    bench = complete(training())
    raise_to(bench, duration)
    assert bench.settle(500, swap(pods(), 0, exit=DONE)[:1]).actions == ()
    assert bench.is_true("Complete")


def test_complete_while_the_duration_is_raised() -> None:
    """The head was faster than the wish: complete first, then live again."""
    bench = training()
    raise_to(bench, "30ep")
    over = swap(pods(), 0, exit=DONE)
    bench.plan(100, over)
    assert bench.record()["result"] == "Complete"
    bench.plan(101, over)
    assert created(bench.plan(102)) == NEXT


def test_suspended_while_it_is_extended() -> None:
    bench = training()
    raise_to(bench, "30ep")
    bench.suspend(True)
    bench.plan(20, swap(pods(), 0, exit=ended(ExitCode.STOPPED, said(Outcome.STOPPED, step=160))))
    assert bench.record()["result"] == "Suspended"
    bench.settle(21)
    assert bench.is_true("Suspended")
    bench.suspend(False)
    bench.plan(30)
    assert bench.record(2)["duration"] == "30ep"


def test_an_adopted_attempt_has_the_duration_of_its_pods() -> None:
    """The operator died before it wrote the status, and the user raised the duration meanwhile."""
    bench = Bench()
    bench.service = True
    raise_to(bench, "30ep")
    bench.plan(5, pods(duration="10ep"))
    assert bench.record()["duration"] == "10ep"
    assert deleted(bench.plan(6, pods(duration="10ep"))) == ["digits-1-head"]


def test_an_attempt_of_an_older_operator_is_left_alone() -> None:
    bench = training()
    del bench.raw["status"]["attempts"][0]["duration"]
    raise_to(bench, "30ep")
    assert bench.plan(20, pods(), progress=progress(step=150)).actions == ()


# --- more trials of a search -----------------------------------------------------------------------------------------


def searching(trials: int | None = 8, algorithm: str = "random") -> Bench:
    bench = Bench(retries={"max": 0})
    give(bench, trials, algorithm)
    return bench.running()


def give(bench: Bench, trials: int | None, algorithm: str = "random") -> None:
    budget = {} if trials is None else {"maxTrials": trials}
    space = {"data.batchSize": {"values": [32, 64]}}
    bench.raw["spec"]["tuning"] = {"space": space, "search": {"algorithm": algorithm}, "budget": budget}


def test_a_live_search_saves_and_the_next_attempt_has_more_trials() -> None:
    bench = searching()
    assert bench.record()["maxTrials"] == 8
    give(bench, 12)
    plan = bench.plan(20, pods(), progress=progress())
    assert deleted(plan) == ["digits-1-head"]
    assert bench.reason("Running") == "TrialsExtended"
    assert bench.message("Running") == "Saving a checkpoint; the search then continues to 12 trials."
    over = swap(pods(), 0, exit=ended(ExitCode.STOPPED, said(Outcome.STOPPED)))
    bench.plan(25, over)
    assert (bench.record()["result"], bench.record().get("failureClass")) == ("Extended", None)
    bench.plan(26, over)
    assert created(bench.plan(27)) == NEXT
    assert bench.record(2)["maxTrials"] == 12
    assert bench.status["restarts"]["counted"] == 0
    assert deleted(bench.plan(40, pods(2, 27), progress=progress(2))) == []


def test_a_population_that_is_complete_stays_so() -> None:
    """Its trials were trained side by side: another number would be another search."""
    bench = Bench(retries={"max": 0})

    def ask(trials: int) -> None:
        give(bench, trials)
        lr = {"optimizer.lr": {"min": 0.001, "max": 0.1}}
        objectives = [{"metric": "val/loss", "reduce": "last"}]
        bench.raw["spec"]["tuning"] |= {"space": lr, "objectives": objectives, "pruning": {"algorithm": "pbt"}}

    ask(8)
    complete(bench.running())
    ask(12)
    assert bench.plan(500).actions == ()
    assert bench.is_true("Complete")


def test_a_complete_search_becomes_live_again() -> None:
    bench = complete(searching(None))
    give(bench, 65)
    plan = bench.plan(500)
    assert created(plan) == NEXT
    assert bench.reason("Complete") == "TrialsExtended"
    assert bench.message("Complete") == "tuning.budget.maxTrials was raised from 64 to 65; the search continues."
    assert [event.reason for event in plan.events if event.type == "Normal"] == ["TrialsExtended"]
    bench.plan(600, swap(pods(2, 500), 0, exit=DONE))
    assert bench.is_true("Complete")
    assert bench.plan(700, swap(pods(2, 500), 0, exit=DONE)[:1]).actions == ()


@pytest.mark.parametrize("trials", [8, 7])
def test_as_many_trials_as_before_change_nothing(trials: int) -> None:
    bench = complete(searching())
    give(bench, trials)
    assert bench.settle(500, swap(pods(), 0, exit=DONE)[:1]).actions == ()


def test_all_of_a_grid_is_no_number_that_could_be_raised() -> None:
    bench = complete(searching(None, "grid"))
    assert bench.record().get("maxTrials") is None
    give(bench, 100, "grid")
    assert bench.settle(500, swap(pods(), 0, exit=DONE)[:1]).actions == ()


def test_an_adopted_search_has_the_trials_of_its_pods() -> None:
    bench = Bench()
    bench.service = True
    give(bench, 12)
    bench.plan(5, [replace(pod, max_trials=8) for pod in pods()])
    assert bench.record()["maxTrials"] == 8
    assert deleted(bench.plan(6, pods())) == ["digits-1-head"]


# --- more hours of a search ------------------------------------------------------------------------------------------


def give_hours(bench: Bench, hours: float) -> None:
    give(bench, 8)
    bench.raw["spec"]["tuning"]["budget"]["maxHours"] = hours


def for_hours(hours: float) -> Bench:
    bench = Bench(retries={"max": 0})
    give_hours(bench, hours)
    return bench.running()


def test_a_search_that_is_out_of_hours_becomes_live_again() -> None:
    bench = complete(for_hours(1))
    assert bench.record()["maxHours"] == 1
    give_hours(bench, 2.5)
    plan = bench.plan(500)
    assert created(plan) == NEXT
    assert bench.reason("Complete") == "HoursExtended"
    assert bench.message("Complete") == "tuning.budget.maxHours was raised from 1 to 2.5 hours; the search continues."
    assert [event.reason for event in plan.events if event.type == "Normal"] == ["HoursExtended"]
    assert bench.record(2)["maxHours"] == 2.5


def test_a_live_search_saves_and_the_next_attempt_has_more_hours() -> None:
    bench = for_hours(1)
    give_hours(bench, 2)
    assert deleted(bench.plan(20, pods(), progress=progress())) == ["digits-1-head"]
    assert bench.message("Running") == "Saving a checkpoint; the search then continues to 2 hours."


@pytest.mark.parametrize("hours", [1, 0.5])
def test_as_many_hours_as_before_change_nothing(hours: float) -> None:
    bench = complete(for_hours(1))
    give_hours(bench, hours)
    assert bench.settle(500, swap(pods(), 0, exit=DONE)[:1]).actions == ()


def test_a_search_in_two_lines_is_extended_too() -> None:
    bench = Bench(retries={"max": 0})
    bench.raw["spec"]["hyperparameterSearch"] = {"method": "random", "budget": "1h"}
    complete(bench.running())
    bench.raw["spec"]["hyperparameterSearch"]["budget"] = "90m"
    assert created(bench.plan(500)) == NEXT
    assert bench.message("Complete").startswith("hyperparameterSearch.budget was raised from 1 to 1.5 hours; ")


def test_an_adopted_search_has_the_hours_of_its_pods() -> None:
    bench = Bench()
    bench.service = True
    give_hours(bench, 2)
    bench.plan(5, [replace(pod, max_hours=1.0) for pod in pods()])
    assert bench.record()["maxHours"] == 1
    assert deleted(bench.plan(6, pods())) == ["digits-1-head"]
