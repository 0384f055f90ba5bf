"""From a warm process to a rank that trains: wait for the assignment, build the context, call the backend."""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainmaster_api.reasons import FailureClass

from trainmaster_trainer.context import Context, Report, Result, Signal, Verdict
from trainmaster_trainer.errors import PortTaken, TrainingError
from trainmaster_trainer.failures import rank_error, standing
from trainmaster_trainer.ipc.environment import ENV_FRAMEWORK, ENV_SPARE
from trainmaster_trainer.ipc.link import Talk
from trainmaster_trainer.ipc.messages import (
    Answered,
    Asked,
    Assignment,
    Dump,
    Failed,
    Finished,
    Message,
    Parts,
    Placement,
    Progress,
    Ready,
    Stacks,
    Stop,
    Surroundings,
)
from trainmaster_trainer.kernel import name_process
from trainmaster_trainer.surroundings import device_name

from .between import Between
from .warm import hurry, modules_of, warm_up

_STACK_LINES = 30
Fit = Callable[[Context], Result]


class Rank:
    """This process. Its main thread runs the backend, and with it the user's code."""

    def __init__(
        self, connection: socket.socket, fit: Fit | None = None, warm: Callable[[], None] | None = None
    ) -> None:
        """Listen to the agent.

        Args:
            connection: To the agent.
            fit: Trains; None: the backend of the job's framework.
            warm: Called before the assignment; None: import the framework.
        """
        self._fit = fit
        self._warm = warm or _import_framework
        self._signal = Signal.CONTINUE
        self._verdicts: queue.SimpleQueue[Verdict] = queue.SimpleQueue()
        self._joined: contextlib.ExitStack | None = None
        self._device: Any = None
        self._between = Between()
        self._assignment: queue.SimpleQueue[Assignment] = queue.SimpleQueue()
        self._agent = Talk(connection, self._on_message, on_end=_end_at_once)
        self._agent.begin()

    # -- interface of the backend ---------------------------------------------------------------------------------
    def poll(self) -> Signal:
        """Return whether to continue, or to save and stop."""
        return self._signal

    def report(self, report: Report) -> None:
        """Send a report to the agent."""
        self._agent.send(Progress(report=report))

    def ask(self, report: Report, time: int) -> Verdict:
        """Send a validation of a trial, and wait for the verdict."""
        self._agent.send(Asked(time=time, report=report))
        return self._verdicts.get()

    # -- life cycle --------------------------------------------------------------------------------------------
    def run(self) -> int:
        """Run until training has ended; return the exit code. The agent has been sent the result or the failure.

        The rank of a search trains trial after trial, in one process group, as long as its process is as good as new.
        """
        self._warm()
        self._agent.send(Ready())
        while True:
            assignment = self._assignment.get()
            name_process(f"rank {assignment.placement.rank}")
            os.environ.update(assignment.environment)
            placement = assignment.placement
            with contextlib.suppress(OSError):  # a missing directory is reported by the data source, with the path
                os.chdir(placement.base_dir)
            try:
                result, is_reusable = self._train(assignment)
            except BaseException as error:  # noqa: BLE001 - every failure must be classified and reported
                _log(error, placement)
                self._agent.send(_failed(error, placement))
                return 1
            if is_reusable:
                self._signal = Signal.CONTINUE
                gc.freeze()  # what is there stays: to look at it again would take longer than the next first step
            self._agent.send(Finished(result=result, reusable=is_reusable))
            if not is_reusable:
                return 0

    def _train(self, assignment: Assignment) -> tuple[Result, bool]:
        """Train one job. Returns its result, and whether this process can train another one."""
        from trainmaster_trainer.backends import BACKENDS

        job, placement = assignment.job, assignment.placement
        backend = BACKENDS.get(job.spec.training.backend, "framework")
        with contextlib.ExitStack() as stack:
            if self._joined is None:
                self._device = stack.enter_context(backend.join(job, placement.world_size, placement.cpus))
                self._agent.send(Surroundings(device=device_name(self._device)))
            else:
                stack.enter_context(self._joined)
                self._joined = None
            self._between.code_dir = placement.code_dir or placement.base_dir
            may_stay = bool(assignment.run) and backend.is_reusable
            with self._between if may_stay else contextlib.nullcontext():
                result = (self._fit or backend.fit)(self._context(assignment, self._device))
            if may_stay and self._between.is_as_new:
                self._joined = stack.pop_all()
        return result, self._joined is not None

    def _context(self, assignment: Assignment, device: Any) -> Context:
        from trainmaster_trainer.backends.script.folders import of_trial
        from trainmaster_trainer.storage.runs import open_run, run_address

        job, placement = assignment.job, assignment.placement
        uri, segment = placement.storage_uri, assignment.segment
        return Context(
            job=job,
            rank=placement.rank,
            world_size=placement.world_size,
            device=device,
            attempt=placement.attempt,
            run=open_run(job, uri, assignment.run),
            run_uri=run_address(job, uri, assignment.run),
            base_dir=Path(placement.base_dir),
            code_dir=Path(placement.code_dir or placement.base_dir),
            work_dir=of_trial(Path(placement.work_dir or placement.base_dir), assignment.run),
            local_rank=placement.local_rank,
            node=placement.group_rank,
            nodes=-(-placement.world_size // placement.local_world_size),
            is_trial=bool(assignment.run),
            gate=self.ask if assignment.run else None,
            objectives=assignment.objectives,
            segment=segment,
            origin=open_run(job, uri, segment.origin) if segment is not None and segment.origin else None,
            share=lambda part: self._agent.send(Parts(part=part)),
            end=self._end,
            fail=lambda error: self._fail(error, placement),
            control=self,
            report=self.report,
        )

    def _end(self, result: Result) -> None:
        """End this process with a result, from a thread beside the user's program."""
        self._agent.send(Finished(result=result))
        flush()
        os._exit(0)

    def _fail(self, error: BaseException, placement: Placement) -> None:
        """End this process with a failure, from a thread beside the user's program."""
        _log(error, placement)
        self._agent.send(_failed(error, placement))
        flush()
        os._exit(1)

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Assignment):
            hurry()
            self._assignment.put(message)
        elif isinstance(message, Stop):
            self._signal = Signal.STOP
        elif isinstance(message, Answered):
            self._verdicts.put(message.verdict)
        elif isinstance(message, Dump):
            self._agent.send(stacks())


def flush() -> None:
    """Write what was printed; the user's program may have closed or replaced either stream."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _log(error: BaseException, placement: Placement) -> None:
    """Print an exception to the pod's log: the status has room for its last lines only. A laptop shows those anyway."""
    if not placement.in_cluster:
        return
    if isinstance(error, TrainingError):  # its message is complete
        print(error.message, file=sys.stderr, flush=True)
    else:
        traceback.print_exception(error)


def _failed(error: BaseException, placement: Placement) -> Failed:
    if isinstance(error, PortTaken):  # as recoverable as a lost peer: the next generation gets another port
        return Failed(failure_class=FailureClass.WORKER_LOST, message=f"rank {placement.rank}: {error}", peer=True)
    found = rank_error(error, placement.rank, placement.pod)
    return Failed(
        failure_class=found.failure_class, message=found.message, last_lines=found.last_lines, peer=found.peer
    )


def stacks() -> Stacks:
    """Return the stacks of all threads, the main one's first, except the one that reads from the agent."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    main = standing(frames.pop(threading.main_thread().ident or 0))
    lines = main.lines[:_STACK_LINES]
    for ident, frame in frames.items():
        name = names.get(ident, "?")
        if not name.startswith("control-"):
            lines += [f"thread {name}:", *standing(frame).lines[:_STACK_LINES]]
    return Stacks(lines=lines, place=main.place, waits=main.waits)


def _import_framework() -> None:
    warm_up(modules_of(os.environ[ENV_FRAMEWORK]), is_spare=bool(os.environ.get(ENV_SPARE)))
    gc.freeze()  # a framework's modules stay


def _end_at_once() -> None:
    os._exit(1)  # without its agent this rank is stale
