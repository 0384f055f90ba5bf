"""A pod with ranks of a trial that is told to end: the trial saves first, and continues elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from trainmaster_api import names
from trainmaster_api.layout import Pointer
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.driver.leaving import Departures, Leavers
from trainmaster_trainer.driver.trial import TrialLost
from trainmaster_trainer.ipc.channel import Peer
from trainmaster_trainer.ipc.messages import Leaving, Left, Message, Progress
from trainmaster_trainer.storage.store import open_store
from trainmaster_trainer.tuning.trials import NUMBER, STATE, TIME, VALUES

from . import test_own_trials, test_trial
from .test_own_trials import STEPS, store_of, written
from .test_trial import World, measured, searching

open_world, open_program = test_trial.open_world, test_own_trials.open_program
_SOON = 100.0


# -- who waits for whom ----------------------------------------------------------------------------------------------
@dataclass
class Other:
    """A peer that keeps what it is sent."""

    number: int
    said: list[Message] = field(default_factory=list)

    def send(self, message: Message) -> None:
        self.said.append(message)


def peer(other: Other) -> Peer:
    return cast("Peer", other)


def test_a_pod_waits_for_every_actor() -> None:
    leavers, launcher, actors = Leavers(), Other(9), [Other(1), Other(2), Other(3)]
    leavers.ask(peer(launcher), Leaving(pod="w-0", ip=""), map(peer, actors))
    assert all(each.said == [Leaving(pod="w-0", ip="")] for each in actors)
    leavers.answered(peer(actors[0]), Left(saved=True, pod="w-0"))
    leavers.answered(peer(actors[1]), Left(saved=False, pod="w-0"))
    assert launcher.said == []
    leavers.gone(peer(actors[2]))
    assert launcher.said == [Left(saved=True, pod="w-0")]
    leavers.gone(peer(actors[0]))
    assert len(launcher.said) == 1


def test_answers_are_those_of_their_pod() -> None:
    leavers, actor = Leavers(), Other(1)
    launchers = {pod: Other(number) for number, pod in enumerate(("w-0", "w-1"), 8)}
    for pod, launcher in launchers.items():
        leavers.ask(peer(launcher), Leaving(pod=pod, ip=""), [peer(actor)])
    leavers.answered(peer(actor), Left(saved=False, pod="w-1"))
    assert [launcher.said for launcher in launchers.values()] == [[], [Left(saved=False, pod="w-1")]]


def test_a_pod_without_actors_needs_not_wait() -> None:
    leavers, launcher = Leavers(), Other(9)
    leavers.ask(peer(launcher), Leaving(pod="w-0", ip=""), [])
    assert launcher.said == [Left(saved=False, pod="w-0")]


def test_what_waits_is_answered_once() -> None:
    answers: list[Left] = []
    departures = Departures(answers.append)
    assert departures.begin()
    assert departures.leaving("w-0", is_open=True)
    assert departures.leaving("w-1", is_open=True)
    assert answers == []
    departures.over(saved=True)
    assert answers == [], "the result is on its way"
    wait(lambda: len(answers) == 2, "the answers")
    departures.let_go()
    assert answers == [Left(saved=True, pod="w-0"), Left(saved=True, pod="w-1")]
    assert not departures.begin(), "the next trial would be lost with the pod"


@pytest.mark.parametrize("has_trial", [True, False])
def test_nothing_to_save(has_trial: bool) -> None:
    """No trial, or one that was pruned and waits for the next one to begin."""
    answers: list[Left] = []
    departures = Departures(answers.append)
    if has_trial:
        departures.begin()
    assert not departures.leaving("w-0", is_open=not has_trial)
    assert answers == [Left(saved=False, pod="w-0")]


# -- with real agents and ranks --------------------------------------------------------------------------------------
@pytest.fixture(autouse=True)
def _pods(monkeypatch: pytest.MonkeyPatch) -> None:
    """The actor's own pod, with rank 0, and one pod for each other rank."""
    monkeypatch.setenv(names.ENV_POD_NAME, "w-0")
    monkeypatch.setattr(test_trial.Threads, "pod", "w-{rank}")


def answers(world: World) -> list[Left]:
    return [each for each in world.driver.messages if isinstance(each, Left)]


def wait(until: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _SOON
    while not until():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def leave(world: World, pod: str, *trials: int) -> None:
    world.driver.peers[0].send(Leaving(pod=pod, ip="", trials=list(trials)))


def to_the_end(world: World, said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    while not said or not said[-1]["done"]:
        said.append(world.host.step())
    return said


@pytest.mark.parametrize(("workers", "pod"), [(1, "w-0"), (2, "w-1")])
def test_trial_is_saved_before_its_pod_ends(open_world: Callable[..., World], workers: int, pod: str) -> None:
    document = searching(workers).wire()
    document["spec"]["checkpoint"]["every"] = "100ep"  # so there is none but that of the leave
    document["spec"]["training"]["loop"]["duration"] = "40ep"  # long enough to be met
    job = TrainingJob.model_validate(document)
    calm = open_world(job, "calm").trial(0, 0.01)
    world = open_world(job)
    world.host.begin({NUMBER: 0, VALUES: {"optimizer.lr": 0.01}})
    said = [world.host.step()]
    leave(world, pod, 0)
    wait(lambda: world.host._departures._pods, "it was heard")
    to_the_end(world, said)
    assert said[-1][STATE] == "Stopped"
    wait(lambda: answers(world), "the answer")
    assert answers(world) == [Left(saved=True, pod=pod)]
    reports = [each.report for each in world.driver.messages if isinstance(each, Progress)]
    run = open_store(f"file://{world.root}", None, None, {}).under("default/t/u/trials/0000")
    saved = Pointer.model_validate_json(run.get("LATEST") or b"{}").step
    assert saved >= max(each.step for each in reports), "nothing is lost"
    world.host.begin({NUMBER: 1, VALUES: {"optimizer.lr": 0.01}})
    with pytest.raises(TrialLost, match="a pod of its ranks ends"):
        world.host.step()
    later = open_world(job)
    said += later.trial(0, 0.01)
    assert dict(measured(said)) == dict(measured(calm))
    assert len(measured(said)) == len(measured(calm)), "no validation twice"


def test_program_is_saved_before_its_pod_ends(open_program: Callable[..., World]) -> None:
    world = open_program()
    assert world.host.begin({NUMBER: 0, VALUES: {"lr": 0.5, "mode": "slow"}})
    said: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: to_the_end(world, said))
    thread.start()
    log = world.root.with_suffix(".log")
    wait(lambda: log.exists() and len(written(world, 0.5)) > 2 * STEPS, "it has written its files twice")
    leave(world, "w-0", 0)
    thread.join(_SOON)
    assert said[-1][STATE] == "Stopped"
    wait(lambda: answers(world), "the answer")
    assert answers(world) == [Left(saved=True, pod="w-0")]
    kept = {path.name for path in (store_of(world, 0) / "checkpoints").iterdir()}
    assert max(kept) >= f"a1-step-{2 * STEPS:07d}", "its newest files"
    later = open_program()
    later.host.begin({NUMBER: 0, VALUES: {"lr": 0.5}})
    said += to_the_end(later, [])
    calm = open_program("calm")
    calm.host.begin({NUMBER: 0, VALUES: {"lr": 0.5}})
    expected = test_own_trials.measured(to_the_end(calm, []))
    assert dict(test_own_trials.measured(said)) == dict(expected)
    assert written(world, 0.5).count(1) == 1, "it has not begun again"


def test_pods_of_others_and_trials_that_are_over(open_world: Callable[..., World]) -> None:
    world = open_world(searching())
    leave(world, "w-9", 0)
    wait(lambda: len(answers(world)) == 1, "the answer of an actor that runs nothing")
    world.host.begin({NUMBER: 0, VALUES: {"optimizer.lr": 0.01}})
    said = [world.host.step()]
    leave(world, "w-9", 0)
    wait(lambda: len(answers(world)) == 2, "the answer of an actor whose ranks are elsewhere")
    to_the_end(world, said)
    assert said[-1][STATE] == "Complete"
    assert [each[TIME] for each in said[:-1]] == [1, 2, 3]
    leave(world, "w-0", 1)
    wait(lambda: len(answers(world)) == 3, "the answer when the trial is over")
    assert not any(each.saved for each in answers(world))


def test_trial_that_is_pruned_is_not_saved(open_world: Callable[..., World], tmp_path: Path) -> None:
    """It waits in its verdict until the next one begins, which may be never."""
    world = open_world(searching())
    world.host.begin({NUMBER: 0, VALUES: {"optimizer.lr": 0.01}})
    assert world.host.step()[TIME] == 1
    leave(world, "w-0")
    wait(lambda: answers(world), "the answer")
    assert answers(world) == [Left(saved=False, pod="w-0")]
