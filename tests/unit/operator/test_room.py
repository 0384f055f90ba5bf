"""Who is next when pods of a namespace go away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from trainmaster_operator.kube.trainingjob_cache import JobKey
from trainmaster_operator.room import Room

T0 = datetime(2026, 1, 1, tzinfo=UTC)
LATE, EARLY, ELSEWHERE, RUNS = (
    JobKey("a", "first-by-name"),
    JobKey("a", "last-by-name"),
    JobKey("b", "x"),
    JobKey("a", "runs"),
)


def at(second: float) -> datetime:
    return T0 + timedelta(seconds=second)


def waiting() -> tuple[Room, list[JobKey]]:
    woken: list[JobKey] = []
    room = Room(lambda key, _: woken.append(key))
    room.refused(LATE, at(9), "2026-01-01T00:00:05Z")
    room.refused(EARLY, at(9), "2026-01-01T00:00:01Z")
    room.refused(ELSEWHERE, at(9), "2026-01-01T00:00:00Z")
    room.seen(RUNS, 3, at(0))
    return room, woken


def test_the_job_that_waited_longest_is_next_and_alone() -> None:
    room, woken = waiting()
    room.seen(RUNS, 1, at(10))
    assert woken == [EARLY]
    assert (room.room_at(EARLY), room.room_at(LATE), room.room_at(ELSEWHERE)) == (at(10), None, None)


def test_more_pods_or_as_many_are_no_room() -> None:
    room, woken = waiting()
    room.seen(RUNS, 3, at(10))
    room.seen(RUNS, 4, at(11))
    assert woken == []


def test_a_job_that_got_its_pods_waits_no_more() -> None:
    room, woken = waiting()
    room.granted(EARLY)
    room.seen(RUNS, 0, at(10))
    assert woken == [LATE]
    assert room.refused_at(EARLY) is None


def test_giving_back_wakes_others_and_not_oneself() -> None:
    room, woken = waiting()
    room.seen(EARLY, 2, at(5))
    room.seen(EARLY, 0, at(20))
    assert woken == [LATE]


def test_room_is_remembered_through_another_refusal() -> None:
    room, _ = waiting()
    room.seen(RUNS, 0, at(10))
    room.refused(EARLY, at(11), "2026-01-01T00:00:01Z")
    assert (room.refused_at(EARLY), room.room_at(EARLY)) == (at(11), at(10))


def test_a_job_that_is_gone_is_forgotten() -> None:
    room, woken = waiting()
    room.forget(EARLY)
    room.seen(RUNS, 0, at(10))
    assert woken == [LATE]
