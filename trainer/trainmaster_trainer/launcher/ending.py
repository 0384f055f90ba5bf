"""How a launcher ends: its termination message and exit code."""

from __future__ import annotations

import contextlib
from pathlib import Path

from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_api.reasons import FailureClass

_LAST_LINES = 12


def end(message: ExitMessage, termination: Path) -> int:
    """Write the termination message, print it, return the exit code."""
    with contextlib.suppress(OSError):  # without a kubelet nothing reads it
        termination.write_text(message.encode())
    what = f"{message.outcome} ({message.failure_class})" if message.failure_class else str(message.outcome)
    print(f"{what}: {message.message}" if message.message else what, flush=True)
    return message.exit_code


def failed(
    failure_class: FailureClass, message: str, pod: str | None = None, last_lines: list[str] | None = None
) -> ExitMessage:
    """Make the message of a failure."""
    return ExitMessage(
        outcome=Outcome.FAILED, failure_class=failure_class, message=message, pod=pod, last_lines=last_lines or []
    )


def tail(path: Path) -> list[str]:
    """Return the last lines of a log; empty if there is no log."""
    try:
        return path.read_text(errors="replace").splitlines()[-_LAST_LINES:]
    except OSError:
        return []
