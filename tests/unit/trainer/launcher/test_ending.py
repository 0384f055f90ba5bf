"""What a launcher leaves behind at its end."""

from __future__ import annotations

from pathlib import Path

import pytest
from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer.launcher.ending import end, failed, tail

STALLED = failed(FailureClass.STALLED, "no heartbeat", "w-1", ["a", "b"])


@pytest.mark.parametrize(
    ("message", "code", "printed"),
    [
        (ExitMessage(outcome=Outcome.COMPLETE), 0, "Complete\n"),
        (ExitMessage(outcome=Outcome.STOPPED, message="after a save"), 75, "Stopped: after a save\n"),
        (STALLED, 1, "Failed (Stalled): no heartbeat\n"),
    ],
)  # fmt: skip
def test_end(message: ExitMessage, code: int, printed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    termination = tmp_path / "termination"
    assert end(message, termination) == code
    assert ExitMessage.decode(termination.read_text()) == message
    assert capsys.readouterr().out == printed


def test_end_without_a_kubelet(tmp_path: Path) -> None:
    assert end(STALLED, tmp_path / "missing" / "termination") == 1


def test_failed() -> None:
    assert (STALLED.outcome, STALLED.failure_class, STALLED.message) == (
        Outcome.FAILED,
        FailureClass.STALLED,
        "no heartbeat",
    )
    assert (STALLED.pod, STALLED.last_lines) == ("w-1", ["a", "b"])


def test_tail(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == []
    log.write_bytes(b"".join(b"line %d\n" % number for number in range(20)) + b"\xff torn")
    assert tail(log) == [*(f"line {number}" for number in range(9, 20)), "\ufffd torn"]
