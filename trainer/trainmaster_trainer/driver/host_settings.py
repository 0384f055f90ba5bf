"""What the driver of a search hands to an actor that runs trials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from trainmaster_api.spec.job import TrainingJob


class Agents(Protocol):
    """The agents of this actor, which start again by themselves."""

    def start(self) -> None:
        """Start them."""

    def close(self) -> None:
        """Start no more."""


@dataclass(frozen=True)
class HostSettings:
    """What an actor must know.

    Attributes:
        job: With the search, resolved.
        control: Where the driver listens.
        agents: Returns this host's address, and what makes the agents that find this actor at an address.
        storage_uri: Where runs are stored.
        attempt: Number of the attempt.
    """

    job: dict[str, Any]
    control: tuple[str, int]
    agents: Callable[[TrainingJob], tuple[str, Callable[[int, str], Agents]]]
    storage_uri: str = ""
    attempt: int = 1
