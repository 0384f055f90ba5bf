"""Trials on the cluster: of a program that loses its pods, of a population that loses all of Ray, of a deleted job."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from trainmaster_api.names import HEADS_SERVICE, worker_pod
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.tuning.space import axes_of
from trainmaster_trainer.storage.store import open_store
from trainmaster_trainer.tuning.journal import Journal
from trainmaster_trainer.tuning.study import Study
from trainmaster_trainer.tuning.trials import TrialEnd

from tests.e2e.conftest import events, keys, make_job, read, run_prefix, wait_checkpoint
from tests.e2e.kube import Json, Namespace, status
from tests.e2e.test_10_own_code import submit
from tests.e2e.test_12_search import journal, metrics_of

ROUNDS, LOST_AT = 10, 3
PROGRAM = """
import json, os, sys, time
import trainmaster

rate, state = trainmaster.parameters()["rate"], {"weight": 0.0, "round": 0, "begins": []}
if os.path.exists("out/state.json"):
    with open("out/state.json") as file:
        state = json.load(file)
state["begins"].append(state["round"])
os.makedirs("out", exist_ok=True)
rounds, lost_at = map(int, sys.argv[1:3])
while state["round"] < rounds:
    if state["round"] == lost_at and len(state["begins"]) == 1 and "/trials/" in os.getcwd():
        time.sleep(300)  # until its pod is lost
    state["weight"] += rate * (1 - state["weight"])
    state["round"] += 1
    trainmaster.report(val_loss=1 - state["weight"])
    with open("out/next", "w") as file:
        json.dump(state, file)
    os.replace("out/next", "out/state.json")
"""
RATES = (0.2, 0.4, 0.1, 0.05)
SEARCH: Json = {
    "objectives": [{"metric": "val/loss", "goal": "minimize"}],
    "space": {"rate": {"min": 0.01, "max": 0.5}},
    "search": {"algorithm": "random", "seed": 1},
    "pruning": {"algorithm": "asha", "reductionFactor": 2},
    "warmStart": {"points": [{"rate": rate} for rate in RATES]},
    "budget": {"maxTrials": len(RATES)},
}


def test_trials_of_a_program_lose_their_pods(shared_namespace: Namespace, s3: Any, tmp_path: Path) -> None:
    """The first one's pod is drained, the second one's is killed; they continue from their own files."""
    ns, name = shared_namespace, "own"
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text(PROGRAM)
    script = {
        "path": "train.py", "args": [str(ROUNDS), str(LOST_AT)], "checkpoints": ["out"],
        "parameters": {"rate": RATES[0]},
    }  # fmt: skip
    submit(ns, tmp_path, name, {"code": {"path": "src"}, "script": script}, 1, tuning=SEARCH)
    started, pod = ns.job(name), worker_pod(name, 1, 0)
    wait_checkpoint(s3, started, step=LOST_AT, run="trials/0000/")
    eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name=pod, namespace=ns.name))
    ns.cluster.core.create_namespaced_pod_eviction(pod, ns.name, eviction)
    wait_checkpoint(s3, started, step=LOST_AT, run="trials/0001/")
    ns.cluster.core.delete_namespaced_pod(pod, ns.name, grace_period_seconds=0)
    job = ns.complete(name)
    said = [each.get("message", "") for each in events(s3, job)]
    assert "trial 0 has saved: its pod ends" in said
    assert "trial 1 lost its processes" in said
    run = run_prefix(job)
    found = [
        (each["values"]["rate"], each["state"], each["time"], each["objectives"][0])
        for each in json.loads(read(s3, f"{run}tuning/result.json"))["trials"]
    ]
    # of two and of three only the best continues, and of four the best two
    assert found == [
        (rate, state, rounds, pytest.approx((1 - rate) ** rounds))
        for rate, state, rounds in zip(
            RATES, ("Complete", "Complete", "Pruned", "Pruned"), (ROUNDS, ROUNDS, 1, 1), strict=True
        )
    ]
    for number in (0, 1):
        state = files_of(s3, f"{run}trials/{number:04d}/")["out/state.json"]
        assert (state["round"], state["begins"]) == (ROUNDS, [0, LOST_AT])
    assert (status(job)["attempt"], status(job)["restarts"]["counted"]) == (1, 0)
    assert status(job)["tuning"]["summary"].startswith("4/4 trials, best val/loss=")
    model = json.loads(read(s3, f"{run}model/out/state.json"))
    assert model == {"weight": pytest.approx(1 - (1 - max(RATES)) ** ROUNDS), "round": ROUNDS, "begins": [0]}


def files_of(s3: Any, run: str) -> Json:
    """The newest JSON files of a trial, by path."""
    newest = max(key for key in keys(s3, f"{run}checkpoints/") if key.endswith("/manifest.json"))
    files = json.loads(read(s3, f"{run}checkpoints/{newest}"))["files"]
    return {each["path"].partition("/")[2]: json.loads(read(s3, f"{run}objects/{each['sha256']}")) for each in files}


EPOCHS = 4
POPULATION: Json = {
    "objectives": [{"metric": "val/accuracy", "reduce": "last"}],
    "space": {"optimizer.lr": {"min": 1e-6, "max": 0.03, "scale": "log"}},
    "search": {"algorithm": "random", "seed": 1},
    "pruning": {"algorithm": "pbt"},
    "warmStart": {"points": [{"optimizer.lr": 1e-6}]},
    "budget": {"maxTrials": 3},
}


def test_population_loses_all_of_ray(shared_namespace: Namespace, s3: Any, tmp_path: Path) -> None:
    """Who continues from whom, and with which values, is what follows from the seed and the metrics alone."""
    ns, name = shared_namespace, "population"
    job = make_job(name)
    job["spec"]["training"] |= {"model": {"name": "mlp", "args": {"hidden": [32]}}, "loop": {"duration": f"{EPOCHS}ep"}}
    job["spec"]["tuning"] = POPULATION
    ns.apply(job)
    started = ns.job(name)
    wait_reports(s3, started, 4)  # in the second of four rounds
    for pod in ns.pods(name):
        ns.cluster.core.delete_namespaced_pod(pod, ns.name, grace_period_seconds=0)
    job = ns.complete(name)
    assert status(job)["attempt"] == 2
    result = json.loads(read(s3, f"{run_prefix(job)}tuning/result.json"))
    assert [(each["state"], each["time"]) for each in result["trials"]] == [("Complete", EPOCHS)] * 3
    decided = [(each["number"], each["rounds"], each["values"], each["objectives"]) for each in result["trials"]]
    assert decided == of_population(s3, job, tmp_path)
    sources = [how["source"] for number, rounds, *_ in decided for how in rounds if how["source"] != number]
    assert sources, "the rate of the first trial leads nowhere"
    assert min(each["objectives"][0] for each in result["trials"]) > 0.5, "it has the weights of another one"
    assert status(job)["testMetrics"]["test/accuracy"] > 0.7


def wait_reports(s3: Any, job: Json, count: int, timeout: float = 240) -> None:
    """Wait until the journal has so many validations."""
    deadline = time.monotonic() + timeout
    while len(found := [each for each in journal(s3, job) if "intermediate_value" in each]) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)  # S3 has nothing to wait on


def of_population(s3: Any, job: Json, folder: Path) -> list[Any]:
    """What an undisturbed population decides with the metrics that the trials had, one trial after another."""
    typed = TrainingJob.model_validate({key: value for key, value in job.items() if key != "status"})
    tuning = typed.spec.tuning
    assert tuning is not None
    seen = metrics_of(s3, job)
    study = Study(tuning, axes_of(typed.spec), Journal(open_store(f"file://{folder}", None, None, {}), 1), EPOCHS)
    while (found := study.ask()) is not None:
        (value,) = seen[found.number][str(found.until)]
        study.report(found.number, found.until, {"val/accuracy": value})
        study.tell(found.number, TrialEnd.PAUSED if found.until < EPOCHS else TrialEnd.COMPLETE)
    written = [each.wire() for each in study.trials()]
    return [(each["number"], each["rounds"], each["values"], each["objectives"]) for each in written]


KINDS = "pods,services,secrets,configmaps,serviceaccounts,persistentvolumeclaims,jobs,roles,rolebindings,leases"


def test_deleted_search_has_saved_and_leaves_nothing(namespace: Namespace, s3: Any) -> None:
    """All of its pods are told to end at once; its only checkpoint is the one of that moment."""
    ns, name = namespace, "gone"
    before = objects(ns)
    job = make_job(name, checkpoint__every="100000step", cluster__workers__count=1)
    job["spec"]["training"] |= {"model": {"name": "mlp", "args": {"hidden": [8]}}, "loop": {"duration": "1000ep"}}
    job["spec"]["tuning"] = {
        "space": {"optimizer.lr": {"min": 0.0001, "max": 0.1}},
        "pruning": {"algorithm": "none"},
        "budget": {"maxTrials": 2},
    }
    ns.apply(job)
    started = ns.job(name)
    wait_reports(s3, started, 3)
    trial = f"{run_prefix(started)}trials/0000/"
    assert "LATEST" not in keys(s3, trial)
    ns.cluster.kubectl("delete", "tj", name, "-n", ns.name)
    ns.wait_no_pods(name)
    saved = json.loads(read(s3, f"{trial}LATEST"))
    assert saved["step"] > 0
    assert f"checkpoints/a1-step-{saved['step']:07d}/manifest.json" in keys(s3, trial)
    ns.wait_pods(name, lambda _: objects(ns) <= before, "only what was there before")


def objects(ns: Namespace) -> set[str]:
    """What is in a namespace, without what Kubernetes puts into each, and the Service that all heads share."""
    found = ns.cluster.kubectl("get", KINDS, "-n", ns.name, "-o", "name").split()
    return set(found) - {"configmap/kube-root-ca.crt", "serviceaccount/default", f"service/{HEADS_SERVICE}"}
