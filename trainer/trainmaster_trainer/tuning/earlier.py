"""What is known before a search: trials of another one, or runs that were recorded elsewhere."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import TrialState
from trainmaster_api.spec.tuning import Objective
from trainmaster_api.tuning.space import Axis

from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.storage.store import Store

from .journal import Snapshot
from .parameters import found
from .trials import NUMBER, ROUNDS, STUDY, is_higher

OBJECTIVES = "objectives"
"""Key of what a search optimizes, in its journal."""


@dataclass(frozen=True)
class Known:
    """A finished trial or run.

    Attributes:
        name: What it is called where it comes from.
        values: By name of the parameter; texts where it comes from a tracker, which has nothing else.
        results: Value of each objective, in the order of this search's.
    """

    name: str
    values: Mapping[str, Any]
    results: tuple[float, ...]


@dataclass
class Taken:
    """What is taken of a source, and why the rest isn't.

    Attributes:
        trials: Those that are taken, with values of this search's axes.
        left_out: Reason -> how many.
    """

    trials: list[Known] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def sentence(self, source: str) -> str:
        """Return what was done, for the user."""
        rest = "; ".join(f"{count} left out: {why}" for why, count in sorted(self.left_out.items()))
        known = "1 trial" if len(self.trials) == 1 else f"{len(self.trials)} trials"
        return f"{known} of {source} {'is' if len(self.trials) == 1 else 'are'} known" + (f"; {rest}" if rest else "")


def taken(known: Sequence[Known], axes: Sequence[Axis], higher: Sequence[bool], top_k: int | None) -> Taken:
    """Return which trials count in a space, in their order.

    Args:
        known: Finished trials of a source.
        axes: Parameters of this search.
        higher: Whether higher is better, of each objective.
        top_k: So many of the best; of several objectives, those that the fewest others are better than in all of them.
    """
    result = Taken()
    for each in known:
        if any(map(math.isnan, each.results)):
            result.left_out["without a result"] += 1
            continue
        try:
            values = _fitted(each.values, axes)
        except _Unfit as unfit:
            result.left_out[str(unfit)] += 1
            continue
        result.trials.append(Known(each.name, values, each.results))
    if top_k is not None and len(result.trials) > top_k:
        best = sorted(range(len(result.trials)), key=lambda at: (_rank(result.trials, at, higher), at))[:top_k]
        result.left_out[f"beyond topK = {top_k}"] += len(result.trials) - top_k
        result.trials = [result.trials[at] for at in sorted(best)]
    return result


def _rank(trials: Sequence[Known], at: int, higher: Sequence[bool]) -> int:
    """Return how many trials are better in every objective."""
    own = trials[at].results
    return sum(
        all((a > b) if up else (a < b) for a, b, up in zip(other.results, own, higher, strict=True))
        for other in trials
    )  # fmt: skip


class _Unfit(Exception):  # noqa: N818 - a finding
    pass


def _fitted(values: Mapping[str, Any], axes: Sequence[Axis]) -> dict[str, Any]:
    strange = sorted(set(values) - {axis.name for axis in axes})
    if strange:
        raise _Unfit(f"with {strange[0]}, which is no parameter of this search")
    fitted: dict[str, Any] = {}
    for axis in axes:
        if not axis.exists(fitted):
            continue
        if axis.name in values:
            fitted[axis.name] = _on(axis, values[axis.name])
        elif axis.kind == "constant":
            fitted[axis.name] = axis.values[0]
        else:
            raise _Unfit(f"without {axis.name}")
    return fitted


def _on(axis: Axis, given: Any) -> Any:
    """Return a value of an axis; `given` may be its text."""
    if axis.kind in ("choice", "constant"):
        try:
            return found(axis, given)
        except StopIteration:
            texts = [each for each in axis.values if isinstance(given, str) and str(each) == given]
            if texts:
                return texts[0]
            raise _Unfit(f"with another {axis.name}") from None
    try:
        number = float(given) if isinstance(given, str) else given
    except ValueError:
        raise _Unfit(f"with another {axis.name}") from None
    step = axis.spacing
    is_between = step is not None and abs((number - axis.low) / step - round((number - axis.low) / step)) > 1e-8
    if not axis.has(number) or is_between:
        raise _Unfit(f"with another {axis.name}")
    return int(number) if axis.kind == "int" else float(number)


# -- the journal of another search ----------------------------------------------------------------------------------
def described(objectives: Sequence[Objective]) -> list[list[str]]:
    """Return what is optimized, as a journal has it: results can be compared where it is the same."""
    return [[each.metric, "maximize" if is_higher(each) else "minimize", each.reduce] for each in objectives]


class _ReadOnly(BaseJournalBackend):
    def __init__(self, operations: list[dict[str, Any]]) -> None:
        self._operations = operations

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self._operations[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise AssertionError("the journal of another search is not written")


def search_of(run: Store, objectives: Sequence[Objective]) -> list[Known]:
    """Return the complete trials of a run's search, by number. Its journal isn't written.

    Raises:
        ConfigurationError: It has none, or it optimizes something else.
    """
    operations = list(Snapshot(run).read_logs(0))
    if not operations:
        raise ConfigurationError(
            f"{run.uri} has no search (no tuning/journal-*.jsonl); give the directory of a run with spec.tuning: "
            "<storage.uri>/<namespace>/<name>/<uid>"
        )
    study = optuna.load_study(study_name=STUDY, storage=JournalStorage(_ReadOnly(operations)))
    there, here = study.user_attrs.get(OBJECTIVES), described(objectives)
    if there != here:
        words = ["unknown objectives" if each is None else _words(each) for each in (there, here)]
        raise ConfigurationError(f"the search of {run.uri} has {words[0]}, and this one {words[1]}: not comparable")
    if any(ROUNDS in each.user_attrs for each in study.get_trials(deepcopy=False)):
        raise ConfigurationError(
            f"the search of {run.uri} is a population (pbt), whose trials have no single set of values each"
        )
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ours = sorted((each for each in trials if NUMBER in each.user_attrs), key=lambda each: each.user_attrs[NUMBER])
    return [Known(f"trial {each.user_attrs[NUMBER]}", each.params, tuple(each.values)) for each in ours]


def _words(objectives: Sequence[Sequence[str]]) -> str:
    return ", ".join(f"{metric} ({goal}, {reduce})" for metric, goal, reduce in objectives)
