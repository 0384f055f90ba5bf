"""What is said when an attempt ends: the message for each way in which it can."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainmaster_api.messages import ExitMessage, Outcome, TrainerState
from trainmaster_api.reasons import FailureClass

from trainmaster_trainer.context import Result
from trainmaster_trainer.failures import Failure
from trainmaster_trainer.reporting.state import RunState

_LINES = 20
"""Of the stack of a rank that hangs."""
_PREPARING_SECONDS = 600
_LONGEST_STEPS = 5


def finished(state: RunState, result: Result, model_uri: str) -> ExitMessage:
    """Return the end of a training that has reached its end, or saved and stopped.

    Args:
        state: Of the run.
        result: Of rank 0.
        model_uri: Address of the model; empty: there is none.
    """
    if result.checkpoint is not None:
        state.checkpoint = result.checkpoint
    if result.outcome is not Outcome.COMPLETE:
        return state.ended(Outcome.STOPPED, f"saved at step {result.step} and stopped")
    shown = ", ".join(f"{name} {value:.4f}" for name, value in sorted(result.test_metrics.items()))
    text = f"trained {result.step} steps{'; ' if shown else ''}{shown}"
    return state.ended(Outcome.COMPLETE, text, test_metrics=result.test_metrics, model_uri=model_uri)


def failed(state: RunState, failure: Failure) -> ExitMessage:
    """Return the end of a training that has failed."""
    return state.ended(
        Outcome.FAILED,
        failure.message,
        failure.failure_class,
        rank=failure.rank,
        pod=failure.pod,
        last_lines=failure.last_lines,
    )


def stopped_without_save(state: RunState) -> ExitMessage:
    """Return the end of an attempt that was stopped, with the step that the next one resumes from."""
    step = state.checkpoint.step if state.checkpoint else state.resumed_from_step or 0
    return state.ended(Outcome.STOPPED, f"stopped; will resume from step {step}")


def no_agents(state: RunState, seconds: int) -> ExitMessage:
    """Return the end of an attempt whose agents didn't start although their pods run."""
    text = f"Ray Train started no agents for {seconds} s, although all workers have joined"
    return state.ended(Outcome.FAILED, text, FailureClass.STALLED)


def stalled_search(state: RunState, seconds: int, trials: Sequence[int]) -> ExitMessage:
    """Return the end of a search in which no trial gets on."""
    which = ", ".join(map(str, trials)) or "none"
    text = (
        f"no trial has made progress for {seconds} s; running: {which}; raise run.stallSeconds if a step takes longer"
    )
    return state.ended(Outcome.FAILED, text, FailureClass.STALLED)


def stalled(state: RunState, seconds: int) -> ExitMessage:
    """Return the end of a training that hangs, with the stack of the first rank that told its own."""
    rank, lines = min(state.stacks.items(), default=(None, []))
    step = state.last.step if state.last else 0
    return state.ended(
        Outcome.FAILED,
        f"no new step for {seconds} s after step {step}; look for a deadlock, or raise run.stallSeconds",
        FailureClass.STALLED,
        rank=rank,
        last_lines=lines[-_LINES:],
    )


def patience(asked: int, state: TrainerState, longest: float) -> int:
    """Return the seconds without progress that count as a stall.

    Args:
        asked: `run.stallSeconds`.
        state: Phase of the run.
        longest: Seconds of the longest step so far, of a program whose steps may be of any length; 0: not known.
    """
    limit = max(asked, math.ceil(_LONGEST_STEPS * longest))
    return limit if state is TrainerState.TRAINING else max(limit, _PREPARING_SECONDS)
