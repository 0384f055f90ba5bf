"""How long a driver has been silent."""

from __future__ import annotations

import time
from pathlib import Path

from trainmaster_trainer.ipc.heartbeat import beat, silence


def test_heartbeat_silence(tmp_path: Path) -> None:
    file = tmp_path / "heartbeat"
    assert silence(file) == 0, "a start may take its time"
    file.write_text("")
    assert silence(file) == 0, "a write that is under way"
    file.write_text(str(time.monotonic() - 50))
    assert 50 <= silence(file) < 80
    beat(file)
    deadline = time.monotonic() + 20
    while silence(file) >= 50:
        assert time.monotonic() < deadline, "the first beat comes at once"
        time.sleep(0.005)
