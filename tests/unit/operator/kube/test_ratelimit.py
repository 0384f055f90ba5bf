import asyncio
import random

import pytest
from trainmaster_operator.kube.client import PODS, Client
from trainmaster_operator.kube.connection import Connection
from trainmaster_operator.kube.ratelimit import TokenBucket, backoff

from tests.unit.operator.kube.fake_api import FakeApi, Login, serve


def test_a_burst_passes_and_the_rest_is_spread() -> None:
    now = [0.0]
    bucket = TokenBucket(qps=10, burst=3, clock=lambda: now[0])
    assert [round(bucket.reserve(), 6) for _ in range(5)] == [0, 0, 0, 0.1, 0.2]
    now[0] = 10.0
    assert [round(bucket.reserve(), 6) for _ in range(4)] == [0, 0, 0, 0.1], "a pause fills no more than the burst"


def test_take_refuses_instead_of_waiting() -> None:
    now = [0.0]
    bucket = TokenBucket(qps=1, burst=2, clock=lambda: now[0])
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    now[0] = 1.0
    assert [bucket.take(), bucket.take()] == [True, False]


def test_backoff_doubles_up_to_the_limit_and_varies() -> None:
    rng = random.Random(1)
    for failures, top in ((1, 1.0), (2, 2.0), (4, 8.0), (5, 10.0), (500, 10.0)):
        values = [backoff(failures, 1.0, 10.0, rng) for _ in range(50)]
        assert top / 2 <= min(values) < max(values) <= top


@pytest.mark.parametrize(("qps", "burst"), [(0, 1), (1, 0)])
def test_impossible_limits_are_refused(qps: float, burst: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        TokenBucket(qps, burst)


async def test_all_clients_of_a_process_share_one_limit() -> None:
    """Two clients with 20 requests a second each would be 40 for the API server."""
    api = FakeApi()
    async with serve(api) as url, Connection(lambda: Login(url, api.token), user_agent="t", qps=20, burst=1) as one:
        started = asyncio.get_running_loop().time()
        clients = [Client(one), Client(one, may_write=lambda: True)]
        await asyncio.gather(*(c.create(PODS, "ns", {"metadata": {"name": f"p{i}{j}"}})
                               for i, c in enumerate(clients) for j in range(6)))  # fmt: skip
        assert asyncio.get_running_loop().time() - started >= 11 / 20 - 0.01


async def test_the_lease_does_not_wait_in_line_but_is_counted() -> None:
    api = FakeApi()
    async with serve(api) as url, Connection(lambda: Login(url, api.token), user_agent="t", qps=1, burst=1) as one:
        job = asyncio.create_task(Client(one).create(PODS, "ns", {"metadata": {"name": "a"}}))
        behind = asyncio.create_task(Client(one).create(PODS, "ns", {"metadata": {"name": "b"}}))
        await job
        async with asyncio.timeout(0.8):
            await Client(one, urgent=True).create(PODS, "ns", {"metadata": {"name": "lease"}})
        assert not behind.done()
        assert one.bucket.reserve() > 1.5, "its token was taken all the same"
        behind.cancel()
