"""What Ray Train runs in every worker: an agent that starts the rank as a process of its own and says how it ended.

It imports no torch. A rank that dies is replaced by a warm spare without Ray: the driver tells every agent to start
another one. One thread, one selector: the driver, the rank, the spare.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
from collections.abc import Mapping
from typing import Any

from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.failures import rank_error
from trainmaster_trainer.ipc.environment import ENV_FRAMEWORK, ENV_SPARE
from trainmaster_trainer.ipc.link import Link
from trainmaster_trainer.ipc.messages import (
    Answered,
    Asked,
    Assignment,
    Dump,
    Exited,
    Failed,
    Finished,
    Hello,
    Message,
    Parts,
    Placement,
    Progress,
    Ready,
    Retire,
    Stacks,
    Start,
    Started,
    Stop,
    Surroundings,
    Warm,
)
from trainmaster_trainer.oom import OomWatch
from trainmaster_trainer.surroundings import of_this_process

from .process import RANK_COMMAND, Process

_TICK = 0.1
_LONG_TICK = 5.0  # where the kernel says when a child ends
_MOST_DEAD_SPARES = 3
_END_SECONDS = 10.0


class Retired(Exception):  # noqa: N818 - an event more than an error
    """The driver discarded this group of agents, or is gone; Ray Train starts another one."""


class Agent:
    """Starts, watches and replaces the rank of one Ray Train worker."""

    def __init__(
        self,
        driver: socket.socket,
        hello: Hello,
        job: TrainingJob,
        placement: Placement,
        environment: Mapping[str, str],
        command: tuple[str, ...] = RANK_COMMAND,
        first: Process | None = None,
    ) -> None:
        """Introduce this agent to the driver.

        Args:
            driver: Open connection to the driver.
            hello: Who this is.
            job: What to train.
            placement: Which rank.
            environment: Of the rank, without torchrun's variables.
            command: Starts a process that becomes a rank.
            first: One that was started already.
        """
        self._job, self._placement = job, placement
        self._environment = {**environment, ENV_FRAMEWORK: job.spec.training.backend}
        self._command = command
        self._selector = selectors.DefaultSelector()
        self._oom = OomWatch()
        self._rank: Process | None = None
        self._spare: Process | None = self._adopt(first) if first else None
        self._dead_spares = 0
        self._generation = 0
        self._has_told = False
        self._last_code = -signal.SIGKILL
        self._driver = Link(driver)
        self._selector.register(self._driver, selectors.EVENT_READ)
        self._driver.send(hello)

    def run(self) -> None:
        """Start ranks as the driver says, until it discards this agent or is gone.

        Raises:
            Retired: The driver discarded this agent or is gone; raised so that Ray Train sees a group that failed.
            Exception: Whatever else went wrong here, after the driver was told of it.
        """
        try:
            if self._spare is None:  # let it warm up while the other agents come
                self._spare = self._spawn(is_spare=False)
            while True:
                self._turn()
        except Retired:
            raise
        except Exception as error:
            self._tell_driver(error)
            raise
        finally:
            for process in (self._rank, self._spare):
                if process is not None:
                    self._end(process)
            self._driver.close()
            self._selector.close()

    def _turn(self) -> None:
        tick = _LONG_TICK
        for process in (self._rank, self._spare):
            if process is not None:
                tick = min(tick, _LONG_TICK if process.pidfd is not None else _TICK)
                self._watch(process.link)
        self._watch(self._driver)
        ready = {id(key.fileobj) for key, _ in self._selector.select(tick)}
        self._driver.flush()
        for process in (self._rank, self._spare):
            if process is not None:
                process.link.flush()
                self._hear(process, is_readable=id(process.link) in ready)
        if id(self._driver) in ready:
            for message in self._read(self._driver):
                self._obey(message)

    def _tell_driver(self, error: Exception) -> None:
        """Send what this agent dies of: what it prints is lost with Ray's logs."""
        found = rank_error(error, self._placement.rank, self._placement.pod)
        # a host without memory, processes or disk may be replaced; anything else would only happen again
        passes = isinstance(error, OSError)
        self._driver.send(
            Failed(
                generation=self._generation,
                failure_class=FailureClass.WORKER_LOST if passes else found.failure_class,
                message=f"the agent of {found.message}",
                last_lines=found.last_lines,
                peer=passes,
            )
        )

    def _watch(self, link: Link) -> None:
        if link.fileno() in self._selector.get_map():
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.is_congested else 0)
            self._selector.modify(link, events)

    def _read(self, link: Link) -> list[Message]:
        messages = link.receive()
        if messages is None:
            raise Retired("the driver closed the connection")
        return messages

    # -- the driver ---------------------------------------------------------------------------------------------
    def _obey(self, message: Message) -> None:
        if isinstance(message, Start):
            self._start(message)
        elif isinstance(message, Warm):
            if self._spare is None and self._dead_spares < _MOST_DEAD_SPARES:
                self._spare = self._spawn(is_spare=True)
            if not self._has_told:
                self._has_told = True
                self._driver.send(of_this_process(self._environment))
        elif isinstance(message, Stop | Dump | Answered):
            if self._rank is not None:
                self._rank.link.send(message)
        elif isinstance(message, Retire):
            raise Retired("the driver has discarded this group of agents")

    def _start(self, start: Start) -> None:
        self._generation = start.generation
        job = start.job or self._job
        if start.reuse and self._rank is None:
            # its peers are in a process group that a new process can't join: they must be replaced with it
            self._driver.send(Exited(generation=start.generation, code=self._last_code))
            return
        if start.reuse and self._rank is not None:
            process = self._rank
        else:
            if self._rank is not None:
                self._end(self._rank)
            process = self._spare or self._spawn(is_spare=False)
            self._rank, self._spare = process, None
        process.generation = start.generation
        process.link.send(
            Assignment(
                job=job,
                placement=self._placement,
                run=start.run,
                objectives=start.objectives,
                segment=start.segment,
                environment={
                    **self._since(process),
                    **torchrun_environment(self._placement, start, job),
                },
            )
        )
        self._driver.send(
            Started(generation=start.generation, pid=process.popen.pid, was_warm=process.is_spare and process.is_ready)
        )

    def _since(self, process: Process) -> dict[str, str]:
        """Return what Ray has set since the process was started: GPUs, where that was before the agent was."""
        return {name: value for name, value in self._environment.items() if process.environment.get(name) != value}

    # -- the rank and the spare ---------------------------------------------------------------------------------
    def _hear(self, process: Process, is_readable: bool) -> None:
        code = process.poll()
        if is_readable or code is not None:  # what it said before it ended is read first
            self._pass_on(process)
        if code is None and process.is_silent:
            code = process.wait_or_kill(_END_SECONDS)
        if code is None:
            return
        crash = process.crash()
        self._forget(process)
        if process is self._spare:
            self._spare = None
            self._dead_spares += 1
        else:
            self._rank = None
            self._last_code = code
            self._driver.send(
                Exited(
                    generation=process.generation,
                    code=code,
                    out_of_memory=code == -signal.SIGKILL and self._oom.happened(),
                    last_lines=crash,
                )
            )

    def _pass_on(self, process: Process) -> None:
        while True:
            try:
                messages = process.link.receive()
            except ValueError:
                messages = None  # a rank that sends nonsense is treated as one that hung up
            if not messages:
                process.is_silent = process.is_silent or messages is None
                return
            for message in messages:
                if isinstance(message, Ready):
                    process.is_ready = True
                elif isinstance(message, Progress | Asked | Surroundings | Parts | Failed | Finished | Stacks):
                    self._driver.send(message.model_copy(update={"generation": process.generation}))

    def _spawn(self, *, is_spare: bool) -> Process:
        environment = {**self._environment, **({ENV_SPARE: "1"} if is_spare else {})}
        return self._adopt(Process(self._command, environment, is_spare=is_spare))

    def _adopt(self, process: Process) -> Process:
        process.hand_over_output(f"rank {self._placement.rank}")
        self._selector.register(process.link, selectors.EVENT_READ)
        if process.pidfd is not None:
            self._selector.register(process.pidfd, selectors.EVENT_READ)
        return process

    def _end(self, process: Process) -> None:
        process.kill()
        self._forget(process)

    def _forget(self, process: Process) -> None:
        self._selector.unregister(process.link)
        if process.pidfd is not None:
            self._selector.unregister(process.pidfd)
        process.close()


def torchrun_environment(placement: Placement, start: Start, job: TrainingJob) -> dict[str, str]:
    """Return the variables that torchrun would set, so that any program that runs under it runs here."""
    restarts = start.generation - 1
    hosts = -(-placement.world_size // placement.local_world_size)
    values: dict[str, Any] = {
        "RANK": placement.rank,
        "LOCAL_RANK": placement.local_rank,
        "WORLD_SIZE": placement.world_size,
        "LOCAL_WORLD_SIZE": placement.local_world_size,
        "GROUP_RANK": placement.group_rank,
        "GROUP_WORLD_SIZE": hosts,
        "ROLE_RANK": placement.rank,
        "ROLE_WORLD_SIZE": placement.world_size,
        "ROLE_NAME": "default",
        "MASTER_ADDR": start.master_address,
        "MASTER_PORT": start.master_port,
        "TORCHELASTIC_RUN_ID": f"{job.metadata.uid}-{placement.attempt}",
        "TORCHELASTIC_RESTART_COUNT": restarts,
        "TORCHELASTIC_MAX_RESTARTS": -1,
        "TORCHELASTIC_USE_AGENT_STORE": False,
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": os.environ.get("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"),
    }
    return {name: str(value) for name, value in values.items()}
