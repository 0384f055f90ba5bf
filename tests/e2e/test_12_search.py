"""A search on the cluster loses all of Ray twice, a worker and its head, and is suspended: its trials are the same."""

from __future__ import annotations

import json
from typing import Any

from trainmaster_api.names import worker_pod
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.tuning.space import axes_of
from trainmaster_trainer.storage.store import open_store
from trainmaster_trainer.tuning.journal import Journal
from trainmaster_trainer.tuning.study import Study
from trainmaster_trainer.tuning.trials import Decision, TrialEnd

from tests.e2e.conftest import keys, make_job, read, run_prefix
from tests.e2e.kube import Json, Namespace, holds, progress, status

TRIALS = 64  # enough that some are left for every attempt: a trial takes a second
TUNING: Json = {
    "objectives": [{"metric": "val/accuracy"}],
    "space": {
        "optimizer.lr": {"min": 0.0001, "max": 0.1, "scale": "log"},
        "data.batchSize": {"values": [32, 64, 128]},
    },
    "search": {"algorithm": "tpe", "seed": 1, "startupTrials": 5},
    "pruning": {"algorithm": "asha"},
    "budget": {"maxTrials": TRIALS, "maxParallel": 1},
}


def test_search_loses_its_workers_and_its_head(shared_namespace: Namespace, s3: Any, tmp_path: Any) -> None:
    ns, name = shared_namespace, "search"
    job = make_job(name)
    job["spec"]["training"] |= {"model": {"name": "mlp", "args": {"hidden": [32]}}, "loop": {"duration": "9ep"}}
    job["spec"]["checkpoint"] = {"every": "1ep"}
    job["spec"]["tuning"] = TUNING
    ns.apply(job)
    shown = ns.wait(name, lambda job: ended(job) >= 2, "two trials")
    assert progress(shown)["percent"].endswith(f"/{TRIALS} trials")
    assert progress(shown)["metric"].startswith("best val/accuracy=")
    for attempt in (1, 2):  # all of Ray
        for pod in ns.pods(name):
            ns.cluster.core.delete_namespaced_pod(pod, ns.name, grace_period_seconds=0)
        # not after a number of trials: the counters lag, and what is left takes seconds
        wait_running(ns, name, attempt + 1)
    ns.delete_pod(worker_pod(name, 3, 0))
    before = ended(ns.job(name))
    ns.wait(name, lambda job: ended(job) >= before + 2, "two more trials")
    ns.cluster.core.delete_namespaced_pod(f"{name}-3-head", ns.name, grace_period_seconds=0)
    wait_running(ns, name, 4)
    ns.patch(name, {"spec": {"run": {"suspend": True}}})
    ns.wait(name, lambda job: holds(job, "Suspended"), "the search is suspended")
    ns.wait_no_pods(name)
    assert 0 < ended(ns.job(name)) < TRIALS
    ns.patch(name, {"spec": {"run": {"suspend": False}}})
    job = ns.complete(name, timeout=600)
    assert status(job)["attempt"] == 5
    assert status(job)["tuning"]["summary"].startswith(f"{TRIALS}/{TRIALS} trials, best val/accuracy=")
    assert status(job)["testMetrics"]["test/accuracy"] > 0.85
    result = json.loads(read(s3, f"{run_prefix(job)}tuning/result.json"))
    assert [each["number"] for each in result["trials"]] == list(range(TRIALS))
    assert {each["state"] for each in result["trials"]} == {"Complete", "Pruned"}
    assert replayed(s3, job, tmp_path) == [(each["number"], each["values"], each["state"]) for each in result["trials"]]
    reports = [(each["trial_id"], each["step"]) for each in journal(s3, job) if "intermediate_value" in each]
    assert len(reports) == len(set(reports)), "no validation is decided twice"


def wait_running(ns: Namespace, name: str, attempt: int) -> None:
    """Wait for a trial of an attempt."""
    ns.wait(name, lambda job: status(job)["attempt"] == attempt and holds(job, "Running"), f"attempt {attempt} trains")


def ended(job: Json) -> int:
    found = status(job).get("tuning") or {}
    return sum(found.get(each, 0) for each in ("complete", "pruned", "failed"))


def journal(s3: Any, job: Json) -> list[Json]:
    """The operations of Optuna's journal."""
    prefix = f"{run_prefix(job)}tuning/journal-"
    return [json.loads(line) for key in sorted(keys(s3, prefix)) for line in read(s3, prefix + key).splitlines()]


def metrics_of(s3: Any, job: Json) -> dict[int, Json]:
    """The metrics of each trial, by the number of the validation."""
    numbers, seen = {}, {}
    for line in journal(s3, job):
        if "user_attr" in line and "number" in line["user_attr"]:
            numbers[line["trial_id"]] = line["user_attr"]["number"]
        if "user_attr" in line and "metrics" in line["user_attr"]:
            seen[line["trial_id"]] = line["user_attr"]["metrics"]
    return {numbers[trial]: values for trial, values in seen.items()}


def replayed(s3: Any, job: Json, folder: Any) -> list[tuple[int, Any, str]]:
    """What an undisturbed search decides of the metrics that its trials had, one trial after another."""
    typed = TrainingJob.model_validate({key: value for key, value in job.items() if key != "status"})
    tuning = typed.spec.tuning
    assert tuning is not None
    study = Study(tuning, axes_of(typed.spec), Journal(open_store(f"file://{folder}", None, None, {}), 1), 9)
    metrics = metrics_of(s3, job)
    found = []
    while (trial := study.ask()) is not None:
        for time in range(1, 10):
            (value,) = metrics[trial.number][str(time)]
            if study.report(trial.number, time, {"val/accuracy": value}) is Decision.PRUNE:
                study.tell(trial.number, TrialEnd.PRUNED)
                break
        else:
            study.tell(trial.number, TrialEnd.COMPLETE)
        record = study.trials()[trial.number]
        found.append((record.number, record.values, str(record.end)))
    return found
