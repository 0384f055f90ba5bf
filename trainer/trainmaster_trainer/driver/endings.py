"""What is said when an attempt ends: the message for each way in which it can."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from trainmaster_api.messages import ExitMessage, Outcome, TrainerState
from trainmaster_api.reasons import FailureClass

from trainmaster_trainer.context import Result
from trainmaster_trainer.failures import Failure
from trainmaster_trainer.ipc.messages import Stacks
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


def stalled(state: RunState, seconds: int, stacks: Mapping[int, Stacks], workers: int) -> ExitMessage:
    """Return the end of a training that hangs, with the rank that the others wait for and its stack.

    Args:
        state: Of the run.
        seconds: Without a step.
        stacks: Of the ranks that have responded.
        workers: Number of ranks.
    """
    rank, where = _hanging(stacks, workers)
    step = state.last.step if state.last else 0
    return state.ended(
        Outcome.FAILED,
        f"no new step for {seconds} s after step {step}{where}; look for a deadlock, or raise run.stallSeconds",
        FailureClass.STALLED,
        rank=rank,
        last_lines=stacks[rank].lines[:_LINES] if rank is not None and rank in stacks else [],
    )


def _hanging(stacks: Mapping[int, Stacks], workers: int) -> tuple[int | None, str]:
    """Return the rank that hangs, as far as can be told, and words for where it does."""
    if not stacks:
        return None, ""
    silent = [rank for rank in range(workers) if rank not in stacks]
    if silent:
        return silent[0], f": rank {silent[0]} doesn't respond"
    waiting = [rank for rank in sorted(stacks) if stacks[rank].waits]
    rank = min(set(stacks) - set(waiting), default=min(stacks))
    others = ", ".join(str(each) for each in waiting if each != rank)
    for_it = f" while rank {others} waits for it" if others and not stacks[rank].waits else ""
    return rank, f": rank {rank} is at {stacks[rank].place}{for_it}" if stacks[rank].place else ""


def patience(asked: int, state: TrainerState, longest: float) -> int:
    """Return the seconds without progress that count as a stall.

    Args:
        asked: `run.stallSeconds`.
        state: Phase of the run.
        longest: Seconds of the longest step so far, of a program whose steps may be of any length; 0: not known.
    """
    limit = max(asked, math.ceil(_LONGEST_STEPS * longest))
    return limit if state is TrainerState.TRAINING else max(limit, _PREPARING_SECONDS)
