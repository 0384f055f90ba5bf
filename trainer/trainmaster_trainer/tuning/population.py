"""Population-based training: after each round the worst trials continue from the best, with changed values.

All of it is a function of the results of the round and of the seed. A round ends when every trial has ended it, so it
doesn't matter which of them is quicker.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainmaster_api.spec.tuning import Pruning
from trainmaster_api.tuning.plan import replaced_in
from trainmaster_api.tuning.space import Axis

_MOST_TRIES = 100
Values = dict[str, Any]


@dataclass(frozen=True)
class Member:
    """A trial at the end of a round.

    Attributes:
        number: Of the trial.
        values: That it was trained with.
        score: Value of the objective at the end of the round; NaN is worse than any other.
    """

    number: int
    values: Values
    score: float


@dataclass(frozen=True)
class Exploit:
    """A trial continues from another one.

    Attributes:
        number: Of the trial.
        source: Of that whose checkpoint it loads.
        values: That it continues with.
    """

    number: int
    source: int
    values: Values


def exploits(
    members: Sequence[Member],
    axes: Sequence[Axis],
    pruning: Pruning,
    *,
    seed: int,
    round_number: int,
    higher: bool,
    is_rejected: Callable[[Values], bool],
) -> list[Exploit]:
    """Return which trials continue from another one after a round.

    Args:
        members: All trials that have ended the round.
        axes: Parameters of the search.
        pruning: What is asked for.
        seed: Of the search.
        round_number: From 1.
        higher: Whether a higher score is better.
        is_rejected: Whether a constraint is violated.
    """
    sign = -1 if higher else 1
    ranked = sorted(members, key=lambda each: (math.isnan(each.score), sign * each.score, each.number))
    count = replaced_in(pruning, len(ranked))
    found = []
    for member in sorted(ranked[len(ranked) - count :], key=lambda each: each.number):
        draw = random.Random(f"{seed}/{round_number}/{member.number}")
        source = draw.choice(ranked[:count])
        if math.isnan(source.score):
            continue
        found.append(Exploit(member.number, source.number, _explored(source.values, axes, pruning, draw, is_rejected)))
    return found


def _explored(
    values: Values,
    axes: Sequence[Axis],
    pruning: Pruning,
    draw: random.Random,
    is_rejected: Callable[[Values], bool],
) -> Values:
    """Return changed values that no constraint rejects; those of the source where none is found."""
    by_name = {axis.name: axis for axis in axes}
    for _ in range(_MOST_TRIES):
        found = {name: explore(by_name[name], value, pruning, draw) for name, value in values.items()}
        if not is_rejected(found):
            return found
    return dict(values)


def explore(axis: Axis, value: Any, pruning: Pruning, draw: random.Random) -> Any:
    """Return another value of a parameter: one nearby, or one from the whole range."""
    if axis.kind == "constant":
        return value
    if draw.random() < pruning.resample_probability:
        return _drawn(axis, draw)
    if axis.kind == "choice":
        at = axis.values.index(value) + draw.choice((-1, 1))
        return axis.values[min(max(at, 0), len(axis.values) - 1)]
    return _on(axis, value * draw.choice(pruning.perturb_factors))


def _drawn(axis: Axis, draw: random.Random) -> Any:
    if axis.kind == "choice":
        return draw.choice(axis.values)
    if axis.is_log:
        return _on(axis, math.exp(draw.uniform(math.log(axis.low), math.log(axis.high))))
    return _on(axis, draw.uniform(axis.low, axis.high))


def _on(axis: Axis, number: float) -> float:
    """Return the nearest number that is on a range."""
    step = axis.spacing
    if step is not None:
        most = int(axis.count) - 1
        number = axis.low + min(max(round((number - axis.low) / step), 0), most) * step
    number = min(max(number, axis.low), axis.high)
    return round(number) if axis.kind == "int" else float(number)


@dataclass(frozen=True)
class Continuation:
    """How a trial continues after a round, as the journal has it.

    Attributes:
        source: Of the trial whose checkpoint it loads: its own number, or that of a better one.
        values: That it continues with.
    """

    source: int
    values: Values

    def wire(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"source": self.source, "values": self.values}


def continuations(members: Sequence[Member], found: Sequence[Exploit]) -> Mapping[int, Continuation]:
    """Return how each trial continues, by its number."""
    changed = {each.number: Continuation(each.source, each.values) for each in found}
    return {each.number: changed.get(each.number, Continuation(each.number, each.values)) for each in members}
