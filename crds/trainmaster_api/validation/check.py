"""What a rule between fields is that exists in Python only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trainmaster_api.spec.job import Spec

from .problem import Problem

Find = Callable[[Spec], Iterator[Problem]]


@dataclass(frozen=True)
class Check:
    """A rule that exists in Python only.

    Attributes:
        id: Its name, for tests.
        reads: Paths that it reads; it is skipped while one of them has a problem of its own.
        find: Yields the problems, with path and without value.
        summary: The rule in one sentence, for the reference.
        optional: Whether it also runs where a task, data or model that it reads isn't there.
    """

    id: str
    reads: tuple[str, ...]
    find: Find
    summary: str
    optional: bool = False


def registering(checks: list[Check], *, optional: bool = False) -> Callable[..., Callable[[Find], Find]]:
    """Return a decorator that adds a check to a list, with `optional`; it takes the paths that the check reads.

    The check's docstring is its summary.
    """

    def check(*reads: str) -> Callable[[Find], Find]:
        def register(find: Find) -> Find:
            name = find.__name__.strip("_").replace("_", "-")
            checks.append(Check(name, reads, find, " ".join((find.__doc__ or "").split()), optional))
            return find

        return register

    return check
