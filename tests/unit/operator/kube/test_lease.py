import asyncio
from typing import Any

import pytest
from trainmaster_operator.kube.client import Client
from trainmaster_operator.kube.lease import Elector, LeaseTimes

from tests.unit.operator.kube.fake_api import FakeApi, Fault, connect

LEASE = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/op"


class Clock:
    def __init__(self, start: float = 1000.0) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now


def candidate(client: Client, name: str, clock: Clock) -> Elector:
    return Elector(client, "ns", "op", name, times=LeaseTimes(15, 10, 3), clock=clock)


def holder(api: FakeApi) -> Any:
    return api.objects[LEASE]["spec"]["holderIdentity"]


async def test_the_first_one_leads_and_keeps_leading() -> None:
    api, clock = FakeApi(), Clock()
    async with connect(api) as client:
        first, second = candidate(client, "a", clock), candidate(client, "b", clock)
        for _ in range(20):
            await first.step()
            await second.step()
            assert first.is_leader()
            assert not second.is_leader()
            clock.now += 3
    assert holder(api) == "a"
    assert api.objects[LEASE]["spec"]["leaseTransitions"] == 1


async def test_lease_of_a_dead_leader_is_taken_when_it_runs_out() -> None:
    api, clock = FakeApi(), Clock()
    async with connect(api) as client:
        first, second = candidate(client, "a", clock), candidate(client, "b", clock)
        await first.step()
        await second.step()
        clock.now += 14.9
        await second.step()
        assert not second.is_leader()
        clock.now += 0.2
        await second.step()
        assert second.is_leader()
        assert not first.is_leader()


async def test_lease_never_has_two_leaders() -> None:
    api = FakeApi()
    async with connect(api) as client:
        clock = Clock()
        both = [candidate(client, name, clock) for name in "ab"]
        import random

        rng = random.Random(7)
        for _ in range(400):
            clock.now += rng.choice([0.5, 1, 3, 7, 11, 20])
            assert sum(one.is_leader() for one in both) <= 1
            await rng.choice(both).step()
            assert sum(one.is_leader() for one in both) <= 1


async def test_wall_clocks_do_not_matter() -> None:
    """The two processes' clocks differ by a day, and renewTime is nonsense."""
    api, early, late = FakeApi(), Clock(0.0), Clock(86_400.0)
    async with connect(api) as client:
        first, second = candidate(client, "a", early), candidate(client, "b", late)
        await first.step()
        api.objects[LEASE]["spec"]["renewTime"] = "1999-01-01T00:00:00.000000Z"
        await second.step()
        assert not second.is_leader()
        assert first.is_leader()


async def test_a_stopped_leader_does_not_write_when_it_wakes_up() -> None:
    api, clock = FakeApi(), Clock()
    async with connect(api) as client:
        leader = candidate(client, "a", clock)
        await leader.step()
        clock.now += 10.0  # as SIGSTOP does: nothing ran meanwhile
        assert not leader.is_leader()


async def test_lease_is_counted_from_before_the_request() -> None:
    api, clock = FakeApi(), Clock()
    async with connect(api) as client:
        leader = candidate(client, "a", clock)
        await leader.step()
        real = client.replace

        async def slow(*args: Any, **kwargs: Any) -> Any:
            clock.now += 9.0
            return await real(*args, **kwargs)

        client.replace = slow  # type: ignore[method-assign]
        await leader.step()
        assert leader.is_leader()
        clock.now += 1.1
        assert not leader.is_leader()


async def test_renewal_with_a_lost_answer_is_found_at_the_next_step() -> None:
    api, clock = FakeApi(), Clock()
    async with connect(api) as client:
        leader = candidate(client, "a", clock)
        await leader.step()
        api.faults = [Fault("PUT", "drop")]
        clock.now += 3
        await leader.step()
        clock.now += 3
        await leader.step()
        clock.now += 9
        assert leader.is_leader()


async def test_a_released_lease_is_free_at_once() -> None:
    api, clock = FakeApi(), Clock()
    async with connect(api) as client:
        first, second = candidate(client, "a", clock), candidate(client, "b", clock)
        await first.step()
        await second.step()
        await first.release()
        assert not first.is_leader()
        await second.step()
        assert second.is_leader()


async def test_run_returns_when_the_lease_is_lost() -> None:
    api, clock = FakeApi(), Clock()
    async with connect(api) as client:
        leader = Elector(client, "ns", "op", "a", times=LeaseTimes(0.5, 0.4, 0.1))
        running = asyncio.create_task(leader.run())
        await asyncio.wait_for(leader.acquired.wait(), 5)
        usurper = candidate(client, "b", clock)
        api.objects[LEASE]["spec"]["holderIdentity"] = ""
        await usurper.step()
        await asyncio.wait_for(running, 5)
        assert not leader.is_leader()


@pytest.mark.parametrize(("duration", "deadline", "period"), [(10, 10, 3), (15, 3, 3)])
def test_times_that_cannot_work_are_refused(duration: float, deadline: float, period: float) -> None:
    with pytest.raises(ValueError, match="need period"):
        LeaseTimes(duration, deadline, period)
