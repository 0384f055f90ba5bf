import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from trainmaster_operator.runtime.queue import KeyedQueue

from tests.unit.operator.runtime import fake_time

Handler = Callable[[str], Awaitable[float | None]]


async def drive(
    handle: Handler, script: Callable[[KeyedQueue[str]], Awaitable[None]], seconds: float, concurrency: int = 4
) -> None:
    queue = KeyedQueue(handle, concurrency=concurrency, rng=random.Random(1))
    running = asyncio.create_task(queue.run())
    await script(queue)
    await asyncio.sleep(seconds)
    assert not running.done(), running
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_key_that_waits_is_not_added_twice() -> None:
    seen: list[str] = []

    async def handle(key: str) -> None:
        seen.append(key)

    async def script(queue: KeyedQueue[str]) -> None:
        for key in "abaab":
            queue.add(key)

    fake_time.run(drive(handle, script, 10))
    assert seen == ["a", "b"]


def test_queue_key_runs_once_more_for_news_while_it_ran() -> None:
    spans: list[tuple[float, float]] = []

    async def handle(key: str) -> None:
        start = now()
        await asyncio.sleep(1)
        spans.append((start, now()))

    async def script(queue: KeyedQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(0.5)
        for _ in range(5):
            queue.add("a")

    fake_time.run(drive(handle, script, 10))
    assert spans == [(0.0, 1.0), (1.0, 2.0)]


def test_queue_runs_at_most_so_many_keys_at_a_time() -> None:
    active, most, done = 0, 0, 0

    async def handle(key: str) -> None:
        nonlocal active, most, done
        active += 1
        most = max(most, active)
        await asyncio.sleep(1)
        active -= 1
        done += 1

    async def script(queue: KeyedQueue[str]) -> None:
        for index in range(20):
            queue.add(str(index))

    fake_time.run(drive(handle, script, 30, concurrency=3))
    assert (most, done) == (3, 20)


def test_the_earliest_wish_counts() -> None:
    seen: list[float] = []

    async def handle(key: str) -> None:
        seen.append(now())

    async def script(queue: KeyedQueue[str]) -> None:
        queue.add("a", 10)
        queue.add("a", 5)
        queue.add("a", 20)

    fake_time.run(drive(handle, script, 60))
    assert seen == [5.0]


def test_a_handler_says_when_it_wants_to_run_again() -> None:
    seen: list[float] = []

    async def handle(key: str) -> float | None:
        seen.append(now())
        return 7.0 if len(seen) < 3 else None

    async def script(queue: KeyedQueue[str]) -> None:
        queue.add("a")

    fake_time.run(drive(handle, script, 100))
    assert seen == [0.0, 7.0, 14.0]


def test_a_poison_key_backs_off_alone() -> None:
    bad: list[float] = []
    good: list[float] = []

    async def handle(key: str) -> float | None:
        if key == "bad":
            bad.append(now())
            raise RuntimeError("poison")
        good.append(now())
        return 1.0

    async def script(queue: KeyedQueue[str]) -> None:
        queue.add("bad")
        queue.add("good")

    fake_time.run(drive(handle, script, 1000, concurrency=1))
    gaps = [after - before for before, after in itertools.pairwise(bad)]
    assert 10 < len(bad) < 25
    assert gaps[0] < 1.1
    assert 60 <= gaps[-1] <= 120
    assert len(good) >= 999


def test_queue_news_of_a_failing_key_does_not_make_it_spin() -> None:
    seen: list[float] = []

    async def handle(key: str) -> None:
        seen.append(now())
        raise RuntimeError("poison")

    async def script(queue: KeyedQueue[str]) -> None:
        queue.add("a")
        for _ in range(1000):  # its own pods make news all the time
            await asyncio.sleep(0.01)
            queue.add("a")

    fake_time.run(drive(handle, script, 0))
    assert 8 <= len(seen) <= 12


def test_a_success_clears_the_back_off() -> None:
    seen: list[float] = []

    async def handle(key: str) -> None:
        seen.append(now())
        if len(seen) < 6:
            raise RuntimeError("not yet")

    async def script(queue: KeyedQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(100)
        queue.add("a")

    fake_time.run(drive(handle, script, 1))
    assert seen[-1] == 100.0


def test_no_key_starves_another() -> None:
    hot, cold = 0, []

    async def handle(key: str) -> float | None:
        nonlocal hot
        await asyncio.sleep(0.1)
        if key == "hot":
            hot += 1
            return 0.0
        cold.append(now())
        return None

    async def script(queue: KeyedQueue[str]) -> None:
        queue.add("hot")
        for index in range(10):
            queue.add(str(index))

    fake_time.run(drive(handle, script, 10, concurrency=1))
    assert len(cold) == 10
    assert cold[-1] <= 2.3


def test_a_forgotten_key_does_not_come_back() -> None:
    seen: list[str] = []

    async def handle(key: str) -> None:
        seen.append(key)

    async def script(queue: KeyedQueue[str]) -> None:
        queue.add("a", 5)
        queue.forget("a")
        queue.add("b", 6)

    fake_time.run(drive(handle, script, 60))
    assert seen == ["b"]


def test_age_of_the_oldest_waiting_key() -> None:
    ages: list[float] = []

    async def handle(key: str) -> None:
        await asyncio.sleep(30)

    async def script(queue: KeyedQueue[str]) -> None:
        queue.add("a")
        queue.add("b")
        await asyncio.sleep(20)
        ages.append(queue.oldest())

    fake_time.run(drive(handle, script, 60, concurrency=1))
    assert ages == [20.0]


@pytest.mark.parametrize("seed", range(20))
def test_queue_random_adds_are_all_served(seed: int) -> None:
    rng = random.Random(seed)
    running: set[str] = set()
    last_add: dict[str, float] = {}
    last_start: dict[str, float] = {}

    async def handle(key: str) -> None:
        assert key not in running
        running.add(key)
        last_start[key] = now()
        await asyncio.sleep(rng.random())
        running.discard(key)
        if rng.random() < 0.2:
            raise RuntimeError("now and then")

    async def script(queue: KeyedQueue[str]) -> None:
        for _ in range(200):
            key = rng.choice("abcde")
            last_add[key] = now()
            queue.add(key, rng.choice([0, 0, 0.1, 2]))
            await asyncio.sleep(rng.random() / 10)

    fake_time.run(drive(handle, script, 1000, concurrency=2))
    assert all(last_start[key] >= last_add[key] for key in last_add)


@pytest.mark.parametrize("ticks", range(12))
def test_queue_cancellation_together_with_news_ends_it(ticks: int) -> None:
    """asyncio.wait_for of Python 3.11 forgets such a cancellation, and the process would never end."""

    async def handle(key: str) -> None:
        await asyncio.sleep(1)

    async def main() -> None:
        queue = KeyedQueue(handle)
        running = asyncio.create_task(queue.run())
        queue.add("soon", 100)
        queue.add("a")
        await asyncio.sleep(1)
        queue.add("b")
        for _ in range(ticks):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running], timeout=10)
        assert running.cancelled()

    fake_time.run(main())
