"""Which run a file means: pure decisions on what `last.json` holds."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.driver.identity import Identity, Record, Refused, identify

from tests.factories import make_job


def changed(job: TrainingJob, workers: int | None = None, **loop: Any) -> TrainingJob:
    data = job.wire()
    data["spec"]["training"]["loop"] |= loop
    if workers is not None:
        data["spec"]["cluster"]["workers"]["count"] = workers
    return TrainingJob.model_validate(data)


def means(job: TrainingJob, last: Record | None = None, fresh: bool = False) -> Identity:
    return identify(job, last, is_fresh=fresh, file="job.yaml")


def old_record(job: TrainingJob, number: int = 1) -> Record:
    """What `last.json` held before a run could be made longer."""
    fixed = {"training": job.spec.training.wire(), "workers": job.spec.cluster.workers.count}
    text = json.dumps(fixed, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return {"digest": digest, "number": number, "numbers": {digest: number}, "fixed": fixed}


def test_the_same_job_means_the_same_run(job: TrainingJob) -> None:
    first = means(job)
    assert len(first.uid) == 12
    assert first.is_changed
    again = means(job, first.record)
    assert (again.uid, again.is_changed, again.is_outgrown) == (first.uid, False, False)


def test_a_changed_job_says_what_changed(job: TrainingJob) -> None:
    with pytest.raises(Refused, match=r"training\.loop\.seed: 42 -> 43") as found:
        means(changed(job, seed=43), means(job).record)
    assert "start a new run under the same name with --fresh" in str(found.value)


def test_a_record_without_a_newer_field_is_the_same_run(job: TrainingJob) -> None:
    first = means(job)
    older = json.loads(json.dumps(first.record))
    del older["fixed"]["training"]["distributed"]
    text = json.dumps(older["fixed"], sort_keys=True, separators=(",", ":"))
    older["digest"] = hashlib.sha256(text.encode()).hexdigest()[:12]
    assert older["digest"] != first.record["digest"]
    again = means(job, older)
    assert (again.uid, again.is_changed) == (first.uid, False)
    data = job.wire()
    data["spec"]["training"]["distributed"] = {"syncBatchNorm": True}
    with pytest.raises(Refused, match=r"training\.distributed\.syncBatchNorm: False -> True"):
        means(TrainingJob.model_validate(data), older)


def test_a_record_with_a_field_that_is_gone_is_another_run(job: TrainingJob) -> None:
    older = json.loads(json.dumps(means(job).record))
    older["fixed"]["training"]["loop"]["gone"] = 1
    older["digest"] = "0" * 12
    with pytest.raises(Refused, match=r"training\.loop\.gone: 1 -> absent"):
        means(job, older)


def test_other_workers_are_another_run(job: TrainingJob) -> None:
    with pytest.raises(Refused, match="workers: 2 -> 1"):
        means(changed(job, workers=1), means(job).record)


def test_a_longer_run_is_the_same_run(job: TrainingJob) -> None:
    first = means(changed(job, duration="30ep"))
    longer = means(changed(job, duration="31ep"), first.record)
    assert (longer.uid, longer.is_changed, longer.is_outgrown) == (first.uid, True, True)
    assert longer.record["duration"] == "31ep"
    still = means(changed(job, duration="31ep"), longer.record)
    assert (still.uid, still.is_changed, still.is_outgrown) == (first.uid, False, True), "until it is complete"
    done = means(changed(job, duration="31ep"), longer.completed())
    assert not done.is_outgrown


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("30ep", "29ep", "can't be shortened"),
        ("100step", "9step", "can't be shortened"),
        ("30ep", "1000step", "can only be extended in the same unit"),
        ("1000step", "30ep", "can only be extended in the same unit"),
    ],
)
def test_a_shorter_run_is_refused(job: TrainingJob, before: str, after: str, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence) as found:
        means(changed(job, duration=after), means(changed(job, duration=before)).record)
    assert f"training.loop.duration was changed from {before} to {after}" in str(found.value)
    assert "--fresh" in str(found.value)


def test_a_longer_run_with_another_change_names_the_change(job: TrainingJob) -> None:
    with pytest.raises(Refused, match="seed: 42 -> 43") as found:
        means(changed(job, seed=43, duration="99ep"), means(job).record)
    assert "duration" not in str(found.value)


def test_fresh_never_takes_an_old_directory(job: TrainingJob) -> None:
    other = changed(job, seed=43)
    uids, last = [], None
    for wanted in (job, job, job, other, job):
        found = means(wanted, last, fresh=last is not None)
        uids.append(found.uid)
        last = found.record
    assert len(set(uids)) == 5, uids
    assert means(job, last).uid == uids[-1]


def test_fresh_takes_any_duration(job: TrainingJob) -> None:
    first = means(changed(job, duration="30ep"))
    found = means(changed(job, duration="3ep"), first.record, fresh=True)
    assert found.uid != first.uid
    assert not found.is_outgrown


@pytest.mark.parametrize("number", [1, 3])
def test_record_of_an_older_version_is_read(job: TrainingJob, number: int) -> None:
    old = old_record(job, number)
    uid = old["digest"] if number == 1 else f"{old['digest']}-{number}"
    found = means(job, old)
    assert (found.uid, found.is_changed, found.is_outgrown) == (uid, False, False)
    longer = means(changed(job, duration="99ep"), old)
    assert (longer.uid, longer.is_outgrown) == (uid, True)
    assert means(changed(job, duration="99ep"), longer.record).uid == uid
    assert means(job, old, fresh=True).uid not in (uid, old["digest"])
    with pytest.raises(Refused, match="seed: 42 -> 43"):
        means(changed(job, seed=43), old)


def test_budget_and_retention_of_a_search_may_change() -> None:
    def searching(**tuning: Any) -> TrainingJob:
        space = {"optimizer.lr": {"min": 0.001, "max": 0.1}}
        return TrainingJob.model_validate(make_job({"spec.tuning": {"space": space, **tuning}}))

    first = means(searching()).record
    for same in ({"budget": {"maxTrials": 99}}, {"keepBest": 0}):
        assert not means(searching(**same), first).is_changed
    with pytest.raises(Refused, match=r"tuning.search"):
        means(searching(search={"seed": 1}), first)
