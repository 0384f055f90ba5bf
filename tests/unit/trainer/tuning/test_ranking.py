"""Which trials keep their checkpoints."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from trainmaster_trainer.tuning.ranking import front, ranked, removable
from trainmaster_trainer.tuning.trials import TrialEnd, TrialRecord

VALUES = st.sampled_from([0.0, 1.0, 2.0, 3.0, math.nan, math.inf])


@st.composite
def searches(draw: st.DrawFn) -> tuple[list[TrialRecord], list[bool], int]:
    """Trials in the order of their ends, which isn't that of their numbers; the directions; how many are kept."""
    higher = draw(st.lists(st.booleans(), min_size=1, max_size=3))
    count = draw(st.integers(0, 12))
    ends = [draw(st.sampled_from([None, *TrialEnd])) for _ in range(count)]
    ends = [None if end is TrialEnd.STOPPED else end for end in ends]
    values = [draw(st.one_of(st.just(()), st.tuples(*[VALUES] * len(higher)))) for _ in range(count)]
    trials = [TrialRecord(n, {}, end, value, 1) for n, (end, value) in enumerate(zip(ends, values, strict=True))]
    return draw(st.permutations(trials)), higher, draw(st.integers(0, 4))


def wanted(trials: list[TrialRecord], higher: list[bool], keep: int) -> set[int]:
    """Those that are kept, by counting for each trial how many are better."""
    complete = [
        each for each in trials
        if each.end is TrialEnd.COMPLETE and each.objectives and not any(value != value for value in each.objectives)
    ]  # fmt: skip
    good = {t.number: [v if up else -v for v, up in zip(t.objectives, higher, strict=True)] for t in complete}
    kept = {each.number for each in trials if each.end is None}
    for number, mine in good.items():
        if len(higher) == 1:
            better = sum(other > mine or (other == mine and n < number) for n, other in good.items())
            kept |= {number} if better < keep else set()
        else:
            beaten = any(o != mine and all(a >= b for a, b in zip(o, mine, strict=True)) for o in good.values())
            kept |= set() if beaten else {number}
    return kept


@given(searches())
def test_what_is_removed_is_never_needed(search: tuple[list[TrialRecord], list[bool], int]) -> None:
    """Step by step, as trials end, the same ones stay as if it were decided at the end; and none comes back."""
    trials, higher, keep = search
    present: list[TrialRecord] = []
    for count, trial in enumerate(trials, 1):
        present.append(trial)
        gone = removable(present, keep, higher)
        assert not gone & wanted(trials[:count], higher, keep)
        present = [each for each in present if each.number not in gone]
        assert {each.number for each in present} == wanted(trials[:count], higher, keep)
    assert {each.number for each in trials} - removable(trials, keep, higher) == wanted(trials, higher, keep)


def test_value_that_is_no_number_is_never_the_best() -> None:
    trials = [TrialRecord(0, {}, TrialEnd.COMPLETE, (math.nan,), 1), TrialRecord(1, {}, TrialEnd.COMPLETE, (2.0,), 1)]
    assert [each.number for each in ranked(trials, is_higher=True)] == [1]
    assert [each.number for each in front(trials, [False])] == [1]
