import random

import pytest
from trainmaster_operator.kube.ratelimit import TokenBucket, backoff


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
