"""Messages that have a limit."""

from __future__ import annotations

import pytest
from trainmaster_api.messages import EXIT_MESSAGE_LIMIT, CheckpointRef, ExitMessage, Outcome, TrackerRef

CHECKPOINT = CheckpointRef(step=5, attempt=1, uri="s3://b/x", time="2026-01-01T00:00:00Z")


@pytest.mark.parametrize(("outcome", "code"), [(Outcome.COMPLETE, 0), (Outcome.FAILED, 1), (Outcome.STOPPED, 75)])
def test_exit_message_exit_code(outcome: Outcome, code: int) -> None:
    assert ExitMessage(outcome=outcome).exit_code == code


def test_exit_message_cuts_long_tracker_addresses() -> None:
    """The kubelet cuts at 4,096 bytes, and a cut message is no message."""
    long = [TrackerRef(name=f"t{index}", url="https://tracker/" + "x" * 1500, run_id="r") for index in range(8)]
    message = ExitMessage(
        outcome=Outcome.COMPLETE, message="trained", checkpoint=CHECKPOINT, trackers=long, last_lines=["a"]
    )
    text = message.encode()
    assert len(text) <= EXIT_MESSAGE_LIMIT
    found = ExitMessage.decode(text)
    assert found is not None
    assert (found.message, found.checkpoint) == ("trained", CHECKPOINT)
    assert [tracker.name for tracker in found.trackers] == ["t0", "t1"]
