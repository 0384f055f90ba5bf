"""Children and a Ray node that do what a test writes."""

from __future__ import annotations

import signal

from trainmaster_trainer.processes import Children


class Scripted(Children):
    """Exits and signals as a test writes them."""

    def __init__(self, exits: dict[int, int], stop: bool = False) -> None:
        self.exits = exits
        self.stop = stop
        self.sent: list[signal.Signals] = []

    def wait(self, seconds: float) -> bool:
        return self.stop

    def signal(self, pid: int, number: signal.Signals) -> None:
        self.sent.append(number)
        self.exits[pid] = -15


class Deaf(Scripted):
    """Nothing ends when it is told to."""

    def signal(self, pid: int, number: signal.Signals) -> None:
        self.sent.append(number)


class Ray:
    """A node with the troubles that a test writes."""

    def __init__(self, *troubles: str, runs: bool = True, starts: int = 0) -> None:
        self.troubles, self.runs, self.starts = list(troubles), runs, starts
        self.ended = 0

    @property
    def may_start_again(self) -> bool:
        return self.starts > 0

    def trouble(self) -> str | None:
        return self.troubles[0] if self.troubles else None

    def start(self) -> None:
        self.starts -= 1
        self.troubles.pop(0)

    def end(self, seconds: float) -> None:
        self.ended += 1

    def last_lines(self) -> list[str]:
        return ["port 6379 is taken"]


DRIVER = 102
