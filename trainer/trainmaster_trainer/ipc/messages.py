"""The messages between driver, agents, ranks and launchers: one JSON object per line, one serializer.

    launcher --Leaving--> driver <--Hello, Started, Surroundings, Progress, Failed, ...-- agent <--...-- rank
    launcher <--Left----- driver --Start, Warm, Stop, Dump, Retire--> agent --Assignment, Stop, Dump--> rank

A trial of a search has a driver of its own, which is a peer of the job's: it tells that of its progress, and saves for
pods that leave. Its rank 0 sends `Asked` after each validation and waits for `Answered`.

An agent forwards the messages of its rank, so it sends most of them too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.types import Model

from trainmaster_trainer.context import Part, Report, Result, Segment, Verdict

LINE_LIMIT = 1 << 20
"""Bytes; a longer line is not a message."""


class _Message(Model):
    # the loss of a diverging run must arrive as it is
    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")


class Hello(_Message):
    """An agent or a launcher introduces itself; the first message of a connection."""

    type: Literal["hello"] = "hello"
    role: Literal["agent", "launcher", "trial"]
    rank: int = 0
    """Rank that this agent starts."""
    group: str = ""
    """Name of the group in which Ray Train started it: agents of different groups are never mixed."""
    pod: str = ""
    """Name of its pod; empty on a laptop."""
    host: str = ""
    """Address of its host that other ranks reach."""
    pid: int = 0


class Start(_Message):
    """Driver to agent: end the rank, if one runs, and start another one."""

    type: Literal["start"] = "start"
    generation: int
    """Counts the groups of ranks of an attempt, from 1; messages of an older one are stale."""
    master_address: str
    master_port: int
    job: TrainingJob | None = None
    """What to train, where it isn't the agent's own job: that of a trial."""
    run: str = ""
    """Directory below the run's; empty: the run itself."""
    segment: Segment | None = None
    reuse: bool = False
    """Whether the rank that has finished trains this too, in its process and its process group."""
    objectives: tuple[str, ...] = ()
    """Metrics of the search that this is a trial of."""


class Warm(_Message):
    """Driver to agent: training runs, so starting a spare no longer delays it."""

    type: Literal["warm"] = "warm"


class Stop(_Message):
    """Driver to agent to rank: save a checkpoint, then stop."""

    type: Literal["stop"] = "stop"


class Dump(_Message):
    """Driver to agent to rank: send the stacks of all threads."""

    type: Literal["dump"] = "dump"


class Retire(_Message):
    """Driver to agent: kill the rank and end; Ray Train replaces the whole group of agents."""

    type: Literal["retire"] = "retire"


class Leaving(_Message):
    """Launcher to driver: this pod was told to end. The driver of a search tells the drivers of its trials."""

    type: Literal["leaving"] = "leaving"
    pod: str
    ip: str
    trials: list[int] = []
    """Numbers of the trials that are still to be trained."""


class Left(_Message):
    """Driver to launcher, and driver of a trial to that of the job: the pod need not wait any longer."""

    type: Literal["left"] = "left"
    saved: bool
    """Whether a checkpoint was written before."""
    pod: str = ""


class Placement(_Message):
    """The input of a rank that isn't in the job; the same for all generations of an agent."""

    rank: int
    world_size: int
    local_rank: int = 0
    local_world_size: int = 1
    group_rank: int = 0
    """Number of the host among the hosts."""
    pod: str = ""
    attempt: int
    storage_uri: str
    base_dir: str
    code_dir: str = ""
    """Folder of the user's code; empty: `base_dir`."""
    work_dir: str = ""
    """Directory that a program of the user's own runs in; empty: `base_dir`."""
    in_cluster: bool
    cpus: float | None = None
    """Cores that a worker computes with; None: the workers share this machine."""


class Assignment(_Message):
    """Agent to a warm process: become this rank."""

    type: Literal["assignment"] = "assignment"
    job: TrainingJob
    placement: Placement
    environment: dict[str, str]
    """Torchrun's variables."""
    run: str = ""
    """Directory below the run's: that of a trial; empty: the run itself."""
    objectives: tuple[str, ...] = ()
    """Metrics of the search that this is a trial of."""
    segment: Segment | None = None


class Ready(_Message):
    """Rank to agent: the framework is imported."""

    type: Literal["ready"] = "ready"


class Surroundings(_Message):
    """Rank and agent to driver: what a rank runs on. The rank knows its device, the agent has time for the rest."""

    type: Literal["surroundings"] = "surroundings"
    generation: int = 0
    device: str = ""
    python: str = ""
    platform: str = ""
    packages: dict[str, str] = {}
    """Version of each installed package; empty: not this message's."""


class Started(_Message):
    """Agent to driver: the rank's process runs."""

    type: Literal["started"] = "started"
    generation: int
    pid: int
    was_warm: bool
    """Whether it was a spare that had imported the framework."""


class Progress(_Message):
    """Rank to driver: a report of the training loop."""

    type: Literal["progress"] = "progress"
    generation: int = 0
    report: Report


class Parts(_Message):
    """Rank to driver: the checkpoint files of a node."""

    type: Literal["parts"] = "parts"
    generation: int = 0
    part: Part


class Failed(_Message):
    """Rank to driver: training raised."""

    type: Literal["failed"] = "failed"
    generation: int = 0
    failure_class: FailureClass
    message: str
    last_lines: list[str] = []
    peer: bool = False
    """Whether this rank only noticed the loss of another one."""


class Finished(_Message):
    """Rank to driver: training returned."""

    type: Literal["finished"] = "finished"
    generation: int = 0
    result: Result
    reusable: bool = False
    """Whether its process waits for another assignment."""


class Asked(_Message):
    """Rank 0 of a trial to its driver: a validation; it waits for the verdict."""

    type: Literal["asked"] = "asked"
    generation: int = 0
    time: int
    """How many validations there have been."""
    report: Report


class Answered(_Message):
    """The driver of a trial to its rank 0: the verdict."""

    type: Literal["answered"] = "answered"
    generation: int
    verdict: Verdict


class Returned(_Message):
    """Actor of trials to the driver of the job: the ranks of a trial that was stopped have returned."""

    type: Literal["returned"] = "returned"
    trial: int


class Wake(_Message):
    """Driver to a trial's driver: there may be something to do for one that waits."""

    type: Literal["wake"] = "wake"
    count: int
    """Of these messages, from 1."""


class Exited(_Message):
    """Agent to driver: the rank's process has ended."""

    type: Literal["exited"] = "exited"
    generation: int
    code: int
    """Exit status; a negative signal number where a signal ended it."""
    out_of_memory: bool = False
    """Whether the OOM killer ended a process of this container in the meantime."""
    last_lines: list[str] = []
    """Stacks of a crash, from faulthandler."""


class Stacks(_Message):
    """Rank to driver: the stacks of its threads, the main one's first."""

    type: Literal["stacks"] = "stacks"
    generation: int = 0
    lines: list[str]
    place: str = ""
    """The user's line that the main thread is at; empty: it is at none."""
    waits: bool = False
    """Whether the main thread may be waiting for other ranks."""


Message = (
    Hello | Start | Warm | Stop | Dump | Retire | Leaving | Left | Assignment
    | Ready | Surroundings | Started | Progress | Parts | Failed | Finished | Exited | Stacks | Asked | Answered
    | Returned | Wake
)  # fmt: skip
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def encode(message: Message) -> bytes:
    """Return a message as one line.

    Text that isn't Unicode, such as an error that names a file whose name isn't UTF-8, is escaped: a message that can't
    be sent would hide what happened.
    """
    try:
        return message.model_dump_json(exclude_none=True).encode() + b"\n"
    except PydanticSerializationError:
        escaped: Message = _ADAPTER.validate_python(_escape(message.model_dump()))
        return escaped.model_dump_json(exclude_none=True).encode() + b"\n"


def _escape(value: Any) -> Any:
    """Return a value with every lone surrogate in it written as an escape."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_escape(key): _escape(each) for key, each in value.items()}
    return [_escape(each) for each in value] if isinstance(value, list | tuple) else value


def decode(line: bytes) -> Message:
    """Return the message of a line.

    Raises:
        ValueError: The line is not a message.
    """
    try:
        found: Message = _ADAPTER.validate_json(line)
    except ValidationError as error:
        raise ValueError(f"not a message: {error.errors()[0]['msg']}") from None
    return found
