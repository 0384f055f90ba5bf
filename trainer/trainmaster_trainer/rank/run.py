"""From a warm process to a rank that trains: wait for the assignment, build the context, call the backend."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainmaster_api.layout import run_path
from trainmaster_api.reasons import FailureClass
from trainmaster_api.types import parse_quantity

from trainmaster_trainer.context import Context, Report, Result, Signal
from trainmaster_trainer.errors import PortTaken
from trainmaster_trainer.failures import rank_error
from trainmaster_trainer.ipc.environment import ENV_FRAMEWORK, ENV_SPARE
from trainmaster_trainer.ipc.link import Talk
from trainmaster_trainer.ipc.messages import (
    Assignment,
    Dump,
    Failed,
    Finished,
    Message,
    Placement,
    Progress,
    Ready,
    Stacks,
    Stop,
)
from trainmaster_trainer.kernel import name_process

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

    # -- life cycle --------------------------------------------------------------------------------------------
    def run(self) -> int:
        """Run until training has ended; return the exit code. The agent has been sent the result or the failure."""
        self._warm()
        self._agent.send(Ready())
        assignment = self._assignment.get()
        name_process(f"rank {assignment.placement.rank}")
        os.environ.update(assignment.environment)
        placement = assignment.placement
        with contextlib.suppress(OSError):  # a missing directory is reported by the data source, with the path
            os.chdir(placement.base_dir)
        try:
            result = self._train(assignment)
        except BaseException as error:  # noqa: BLE001 - every failure must be classified and reported
            self._agent.send(_failed(error, placement))
            return 1
        self._agent.send(Finished(result=result))
        return 0

    def _train(self, assignment: Assignment) -> Result:
        from trainmaster_trainer.backends import BACKENDS

        job, placement = assignment.job, assignment.placement
        backend = BACKENDS.get(job.spec.training.framework, "framework")
        cpus = parse_quantity(job.spec.cluster.workers.cpus) if placement.in_cluster else None
        with backend.join(job, placement.world_size, cpus) as device:
            return (self._fit or backend.fit)(self._context(assignment, device))

    def _context(self, assignment: Assignment, device: Any) -> Context:
        from trainmaster_trainer.storage.store import open_store

        job, placement = assignment.job, assignment.placement
        meta, storage = job.metadata, job.spec.storage
        path = run_path(meta.namespace, meta.name, meta.uid)
        store = open_store(placement.storage_uri, storage.endpoint, storage.region, os.environ)
        return Context(
            job=job,
            rank=placement.rank,
            world_size=placement.world_size,
            device=device,
            attempt=placement.attempt,
            run=store.under(path),
            run_uri=f"{placement.storage_uri.rstrip('/')}/{path}",
            base_dir=Path(placement.base_dir),
            control=self,
            report=self.report,
        )

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Assignment):
            hurry()
            self._assignment.put(message)
        elif isinstance(message, Stop):
            self._signal = Signal.STOP
        elif isinstance(message, Dump):
            self._agent.send(Stacks(lines=stacks()))


def _failed(error: BaseException, placement: Placement) -> Failed:
    if isinstance(error, PortTaken):  # as recoverable as a lost peer: the next generation gets another port
        return Failed(failure_class=FailureClass.WORKER_LOST, message=f"rank {placement.rank}: {error}", peer=True)
    found = rank_error(error, placement.rank, placement.pod)
    return Failed(
        failure_class=found.failure_class, message=found.message, last_lines=found.last_lines, peer=found.peer
    )


def stacks() -> list[str]:
    """Return the stacks of all threads, innermost call last, except the one that reads from the agent."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found: list[str] = []
    for ident, frame in sys._current_frames().items():
        name = names.get(ident, "?")
        if not name.startswith("control-"):
            lines = [line.rstrip() for line in traceback.format_stack(frame)]
            found += [f"thread {name}:", *"\n".join(lines).splitlines()[-_STACK_LINES:]]
    return found


def _import_framework() -> None:
    warm_up(modules_of(os.environ[ENV_FRAMEWORK]), is_spare=bool(os.environ.get(ENV_SPARE)))


def _end_at_once() -> None:
    os._exit(1)  # without its agent this rank is stale
