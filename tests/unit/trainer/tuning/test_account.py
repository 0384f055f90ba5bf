"""What a search has cost and what pruning has saved, in seconds of trials."""

from __future__ import annotations

import pytest
from trainmaster_trainer.tuning.account import seconds_saved, seconds_used
from trainmaster_trainer.tuning.trials import TrialEnd, TrialRecord


def trial(end: TrialEnd | None, time: int, seconds: float) -> TrialRecord:
    return TrialRecord(0, {}, end, (), time, "", seconds)


def test_pruned_trials_would_have_continued_at_their_own_pace() -> None:
    trials = [
        trial(TrialEnd.COMPLETE, 9, 90), trial(TrialEnd.COMPLETE, 9, 45),
        trial(TrialEnd.PRUNED, 1, 10),  # 8 more of 10 s
        trial(TrialEnd.PRUNED, 3, 60),  # 6 more of 20 s
        trial(TrialEnd.DIVERGED, 1, 5), trial(TrialEnd.OUT_OF_MEMORY, 0, 2), trial(TrialEnd.FAILED, 2, 7),
        trial(TrialEnd.PRUNED, 0, 1), trial(None, 4, 3),
    ]  # fmt: skip
    assert seconds_used(trials) == 223
    assert seconds_saved(trials) == pytest.approx(8 * 10 + 6 * 20)


def test_nothing_is_said_to_be_saved_before_a_trial_is_complete() -> None:
    assert seconds_saved([trial(TrialEnd.PRUNED, 1, 10), trial(None, 5, 50)]) == 0
    assert (seconds_saved([]), seconds_used([])) == (0, 0)
