"""Why the driver of a laptop ended without a result: decided from its exit status, its log and Ray's processes."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_api.reasons import FailureClass

_LINES = 12
_RAYS_NOISE = ("(raylet)", "core_worker", "[36m(", "[33m(")


def explain(code: int, log: Sequence[str], *, raylet_started: bool, raylet_lives: bool) -> ExitMessage:
    """Return what to tell in place of the result that is missing.

    Args:
        code: Exit status of the driver; a negative signal number where a signal ended it.
        log: What it printed.
        raylet_started: Whether it had started Ray.
        raylet_lives: Whether Ray's node process still runs.
    """
    lines = [line for line in log if not any(noise in line for noise in _RAYS_NOISE)][-_LINES:]
    if code < 0:
        text = f"the driver was killed by {_name(-code)}, or this machine ran out of memory"
        return _failed(FailureClass.HEAD_LOST, text, lines)
    if any(line.startswith("Traceback ") for line in log):
        return _failed(FailureClass.INTERNAL_ERROR, f"the driver ended with status {code} and without a result", lines)
    if raylet_started and not raylet_lives:  # its library ends the process whose node is gone, with status 1
        text = "Ray's node process (raylet) ended, and the driver with it: one of Ray's processes was killed, or this "
        return _failed(FailureClass.HEAD_LOST, f"{text}machine ran out of memory", lines)
    return _failed(FailureClass.INTERNAL_ERROR, f"the driver ended with status {code} and without a result", lines)


def _failed(failure_class: FailureClass, text: str, lines: list[str]) -> ExitMessage:
    return ExitMessage(outcome=Outcome.FAILED, failure_class=failure_class, message=text, last_lines=lines)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
