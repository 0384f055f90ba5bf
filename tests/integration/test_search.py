"""`trainmaster run` of a search, with a real Ray Tune: whatever kills it, the same trials and the same winner."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests.factories import load_example
from tests.integration.processes import kill_all
from tests.integration.test_laptop import Laptop, descendants, laptop, name, wait

pytestmark = pytest.mark.ray
__all__ = ["laptop"]


def write(folder: Path, *, workers: int = 1, **tuning: Any) -> None:
    """Write the example, with changes of its search."""
    job = load_example("search")
    job["spec"]["cluster"] = {"workers": {"count": workers}}
    job["spec"]["tuning"] |= tuning
    del job["spec"]["tracking"]
    (folder / "job.yaml").write_text(yaml.safe_dump(job))


def run_of(folder: Path) -> Path:
    (found,) = (folder / "trainmaster-runs").glob("default/*/*/tuning")
    return found.parent


def found(folder: Path) -> list[tuple[Any, ...]]:
    result = json.loads((run_of(folder) / "tuning/result.json").read_text())
    return [
        (each["number"], each["values"], each["state"], each["objectives"], each["time"]) for each in result["trials"]
    ]


def reports(folder: Path) -> int:
    """How many validations the journal has."""
    files = sorted((folder / "trainmaster-runs").glob("default/*/*/tuning/journal-*.jsonl"))
    return sum(file.read_text().count('"intermediate_value"') for file in files)


def begin_and_kill(laptop: Laptop, validations: int) -> None:
    """Begin the search or resume it, and kill everything once its journal has so many validations."""
    process = laptop.start()
    wait(lambda: reports(laptop.folder) >= validations, "reports", unless=process)
    kill_all(process)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search that nothing disturbed."""
    here = Laptop(tmp_path_factory.mktemp("calm"))
    write(here.folder)
    process = here.start()
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert "the search is over: all 8 trials have been run" in output
    return here.folder


def test_search_trains_its_winner(calm: Path) -> None:
    run = run_of(calm)
    trials = found(calm)
    assert [each[0] for each in trials] == list(range(8))
    assert Counter(each[2] for each in trials).keys() == {"Complete", "Pruned"}
    best = max((each for each in trials if each[2] == "Complete"), key=lambda each: (each[3][0], -each[0]))
    final = json.loads((run / "tuning/final.json").read_text())
    assert final == {"number": best[0], "values": best[1]}
    spec = json.loads((run / "spec.json").read_text())["spec"]["training"]
    assert (spec["optimizer"]["lr"], spec["data"]["batchSize"]) == (best[1]["optimizer.lr"], best[1]["data.batchSize"])
    assert not (run / "trials/0000/model").exists()
    ranked = sorted((each for each in trials if each[2] == "Complete"), key=lambda each: (-each[3][0], each[0]))
    kept = {int(path.parent.name) for path in (run / "trials").glob("*/checkpoints")}
    assert kept == {each[0] for each in ranked[:3]}, "keepBest"
    measured = {int(path.parent.name) for path in (run / "trials").glob("*/metrics.jsonl")}
    assert measured >= {each[0] for each in ranked}, "metrics are written with a checkpoint, and stay without it"
    pictures = {path.name for path in (run / "report").glob("search-*.png")}
    assert {"search-history.png", "search-parallel.png", "search-slices.png"} <= pictures
    journal = JournalStorage(JournalFileBackend(str(run / "tuning/study.log")))
    study = optuna.load_study(study_name=None, storage=journal)
    assert study.best_value == best[3][0]


def test_search_killed_twice_and_stopped(laptop: Laptop, calm: Path) -> None:
    """Everything is killed twice, then Ctrl-C stops it; at parallelism 1 nothing is different."""
    write(laptop.folder)
    for validations in (3, 7):
        begin_and_kill(laptop, validations)
    process = laptop.start()
    wait(lambda: reports(laptop.folder) >= 11, "reports", unless=process)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 75, output
    assert "the trials have saved and stopped" in output
    process = laptop.start()
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert found(laptop.folder) == found(calm)
    weights = [(run_of(folder) / "model/model.safetensors").read_bytes() for folder in (laptop.folder, calm)]
    assert weights[0] == weights[1]


def actors(pid: int) -> set[int]:
    """The actors of Ray's that have a rank; a rank whose actor is gone may still be ending."""
    ranks = [each for each in descendants(pid) if name(each) == "rank 0"]
    parents = {int(Path(f"/proc/{rank}/stat").read_text().rpartition(")")[2].split()[1]) for rank in ranks}
    return {each for each in parents if name(each).startswith("ray::")}


def test_search_of_trials_with_two_workers(laptop: Laptop) -> None:
    """Both ranks of a trial are Ray's to place, and they are kept from trial to trial."""
    write(laptop.folder, workers=2, trial={"workers": 2}, search={"algorithm": "random"}, pruning={"algorithm": "none"},
          budget={"maxTrials": 3}, finalRun={"enabled": False})  # fmt: skip
    process = laptop.start()
    seen: dict[int, str] = {}

    def is_over() -> bool:
        seen.update((pid, name(pid)) for pid in descendants(process.pid) if name(pid).startswith("rank "))
        return process.poll() is not None

    wait(is_over, "the end", seconds=600)
    assert process.returncode == 0, process.communicate()[0]
    assert [(each[0], each[2], each[4]) for each in found(laptop.folder)] == [(n, "Complete", 4) for n in range(3)]
    assert sorted(seen.values()) == ["rank 0", "rank 1"]


@pytest.mark.skipif(not Path("/proc").exists(), reason="a process's parent is read from /proc")
def test_search_loses_its_actors(laptop: Laptop, calm: Path) -> None:
    """Tune gives up a trial whose actor is gone before it has begun; the search suggests it again."""
    write(laptop.folder)
    process = laptop.start()
    for kill_after in (4, 9):
        wait(lambda: reports(laptop.folder) >= kill_after, "reports", unless=process)  # noqa: B023 - called at once
        (actor,) = wait(lambda: actors(process.pid), "an actor with a rank")
        os.kill(actor, signal.SIGKILL)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert "lost its processes" in output
    assert found(laptop.folder) == found(calm)


def test_search_is_complete_and_is_extended(laptop: Laptop, calm: Path) -> None:
    write(laptop.folder, budget={"maxTrials": 5}, finalRun={"enabled": False})
    first = laptop.start()
    output = first.communicate(timeout=600)[0]
    assert first.returncode == 0, output
    again = laptop.start()
    output = again.communicate(timeout=120)[0]
    assert again.returncode == 0
    assert "trial 0" not in output
    write(laptop.folder, budget={"maxTrials": 8}, finalRun={"enabled": False})
    longer = laptop.start()
    output = longer.communicate(timeout=600)[0]
    assert longer.returncode == 0, output
    assert found(laptop.folder) == found(calm)
    write(laptop.folder, space={"optimizer.lr": {"min": 0.001, "max": 0.1}}, finalRun={"enabled": False})
    other = laptop.start()
    output = other.communicate(timeout=60)[0]
    assert other.returncode == 2
    assert "has changed since the last run" in output
    assert "tuning.space" in output


def test_search_keeps_its_ranks_and_shares_the_workers(laptop: Laptop) -> None:
    write(laptop.folder, workers=2, search={"algorithm": "random"}, pruning={"algorithm": "none"},
          budget={"maxTrials": 6}, finalRun={"enabled": False})  # fmt: skip
    process = laptop.start()
    seen: set[int] = set()

    def is_over() -> bool:
        seen.update(pid for pid in descendants(process.pid) if name(pid).startswith("rank 0"))
        return process.poll() is not None

    wait(is_over, "the end", seconds=600)
    assert process.returncode == 0, process.communicate()[0]
    assert len(found(laptop.folder)) == 6
    assert len(seen) == 2


def write_population(folder: Path, workers: int) -> None:
    """Write a search by population-based training, in which a rate that is far too low is among the first."""
    write(folder, workers=workers, space={"optimizer.lr": {"min": 1e-6, "max": 0.03, "scale": "log"}},
          objectives=[{"metric": "val/accuracy", "reduce": "last"}], search={"algorithm": "random", "seed": 1},
          pruning={"algorithm": "pbt"}, budget={"maxTrials": 3},
          warmStart={"points": [{"optimizer.lr": 1e-6}]})  # fmt: skip


def rounds(folder: Path) -> list[Any]:
    result = json.loads((run_of(folder) / "tuning/result.json").read_text())
    return [(each["number"], each["rounds"]) for each in result["trials"]]


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a population that nothing disturbed: three trials, two at the same time."""
    here = Laptop(tmp_path_factory.mktemp("population"))
    write_population(here.folder, 2)
    process = here.start()
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert "trial 0 continues from trial " in output
    return here.folder


def test_population_continues_from_its_best(population: Path) -> None:
    run = run_of(population)
    assert [(each[0], each[2], each[4]) for each in found(population)] == [(n, "Complete", 4) for n in range(3)]
    assert {len(each) for _, each in rounds(population)} == {3}
    sources = [how["source"] for number, each in rounds(population) for how in each if how["source"] != number]
    assert sources
    best = max(found(population), key=lambda each: (each[3][0], -each[0]))
    assert min(each[3][0] for each in found(population)) > 0.5, "a trial at a rate of 1e-6 doesn't get there alone"
    # the winner's own weights, and nothing trained again
    final = json.loads((run / "tuning/final.json").read_text())
    assert final == {"number": best[0], "values": best[1], "run": f"trials/{best[0]:04d}/round-0004"}
    (weights,) = (run / final["run"] / "checkpoints").glob("*-0000088/model.safetensors")
    assert (run / "model/model.safetensors").read_bytes() == weights.read_bytes()
    assert not list(run.glob("trials/*/round-0001/checkpoints")), "nothing begins there any more"


def test_killed_population_is_the_undisturbed_one(laptop: Laptop, population: Path) -> None:
    write_population(laptop.folder, 2)
    for validations in (4, 7):
        begin_and_kill(laptop, validations)
    process = laptop.start()
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert found(laptop.folder) == found(population)
    assert rounds(laptop.folder) == rounds(population)
    weights = [(run_of(folder) / "model/model.safetensors").read_bytes() for folder in (laptop.folder, population)]
    assert weights[0] == weights[1]


def test_search_in_two_lines(laptop: Laptop) -> None:
    """A method and a budget: the space follows from the job, and the winner is trained."""
    job = load_example("search")
    del job["spec"]["tuning"], job["spec"]["tracking"]
    job["spec"]["training"]["loop"] = {"duration": "2ep", "seed": 3}
    job["spec"]["hyperparameterSearch"] = {"method": "bayesian", "budget": 3, "metric": "val/accuracy"}
    (laptop.folder / "job.yaml").write_text(yaml.safe_dump(job))
    process = laptop.start()
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert "the search is over: all 3 trials have been run" in output
    trials = found(laptop.folder)
    assert [(each[0], each[2], each[4]) for each in trials] == [(number, "Complete", 2) for number in range(3)]
    names = {"optimizer.lr", "optimizer.weightDecay", "data.batchSize", "model.args.dropout"}
    assert all(each[1].keys() == names for each in trials)
    assert all(0.0001 <= each[1]["optimizer.lr"] <= 0.01 for each in trials)
    best = max(trials, key=lambda each: (each[3][0], -each[0]))
    assert best[3][0] > 0.5, "ten classes: chance is 0.1"
    run = run_of(laptop.folder)
    spec = json.loads((run / "spec.json").read_text())["spec"]
    assert spec["training"]["optimizer"]["lr"] == best[1]["optimizer.lr"]
    assert not {"tuning", "hyperparameterSearch"} & spec.keys()
    assert (run / "model/model.safetensors").exists()
