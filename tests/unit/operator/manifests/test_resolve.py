"""The operator's defaults."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

from trainmaster_api.names import ANNOTATION_JOB
from trainmaster_api.spec.job import TrainingJob
from trainmaster_operator import manifests
from trainmaster_operator.policy.settings import Settings

from .test_golden import PLAIN, SETTINGS, SHAPED


def spec_of(document: dict[str, Any], settings: Settings = SETTINGS) -> dict[str, Any]:
    job, problems = manifests.resolve(document, settings)
    assert job is not None, problems
    found: dict[str, Any] = job.wire()["spec"]
    return found


def test_defaults_are_filled_in() -> None:
    spec = spec_of(PLAIN)
    assert spec["cluster"]["image"] == "trainer:1"
    assert spec["tracking"] == [{"mlflow": {"uri": "http://mlflow:5000"}}]
    assert spec["storage"] == {
        "uri": "s3://runs/all", "endpoint": "http://minio:9000", "region": "us-east-1", "credentialsSecret": "minio",
    }  # fmt: skip


def test_the_jobs_own_storage_is_not_mixed_with_the_default() -> None:
    assert spec_of(SHAPED)["storage"] == {"uri": "s3://mine/x", "region": "eu-central-1"}


def test_what_is_missing_is_said_all_at_once() -> None:
    job, problems = manifests.resolve(PLAIN, Settings())
    assert job is None
    assert [p.path for p in problems] == ["spec.cluster.image", "spec.storage.uri", "spec.tracking[0].mlflow.uri"]
    assert all("--" in p.hint for p in problems)


def test_problems_of_the_file_come_through() -> None:
    bad = copy.deepcopy(PLAIN)
    bad["spec"]["training"]["model"]["args"] = {"hiden": [3]}
    job, problems = manifests.resolve(bad, SETTINGS)
    assert job is None
    assert "hidden" in str(problems[0])


def test_as_the_api_serves_it() -> None:
    served = copy.deepcopy(PLAIN)
    served["metadata"] |= {"generation": 3, "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z"}
    served["status"] = {"phase": "FromTheFuture"}
    job, problems = manifests.resolve(served, SETTINGS)
    assert problems == ()
    assert job is not None
    assert job.metadata.generation == 3


def test_pods_hold_the_resolved_job_and_no_more_metadata() -> None:
    served = copy.deepcopy(PLAIN)
    served["metadata"]["annotations"] = {"a": "b"}
    job, _ = manifests.resolve(served, SETTINGS)
    assert job is not None
    pods = manifests.head(job, 1), manifests.worker(job, 1, 0)
    data, small = (json.loads(pod["metadata"]["annotations"][ANNOTATION_JOB]) for pod in pods)
    assert data["metadata"] == {"name": "digits", "namespace": "team", "uid": "0f3c"}
    assert "status" not in data
    assert TrainingJob.model_validate(data).spec == job.spec
    assert TrainingJob.model_validate(small) == TrainingJob.model_validate(data)
    assert len(json.dumps(small)) < len(json.dumps(data))


def test_a_default_completes_a_tracker_and_adds_none() -> None:
    own = copy.deepcopy(PLAIN)
    mine, other = {"mlflow": {"uri": "http://mine"}}, {"mlflow": {"experiment": "e"}}
    own["spec"]["tracking"] = [{"class": "my_pkg:Csv"}, mine, other]
    assert spec_of(own)["tracking"] == [
        {"class": "my_pkg:Csv"},
        {"mlflow": {"uri": "http://mine"}},
        {"mlflow": {"uri": "http://mlflow:5000", "experiment": "e"}},
    ]
    own["spec"]["tracking"] = []
    assert spec_of(own)["tracking"] == []


def test_host_paths_need_the_operators_consent() -> None:
    document = copy.deepcopy(PLAIN)
    volumes = [{"name": "disk", "hostPath": {"path": "/data"}}]
    document["spec"]["cluster"]["head"] = {"template": {"spec": {"volumes": volumes}}}
    job, problems = manifests.resolve(document, SETTINGS)
    assert job is None
    assert str(problems[0]).startswith("spec.cluster.head.template.spec.volumes[0].hostPath: ")
    assert "--allow-host-path" in str(problems[0])
    job, problems = manifests.resolve(document, replace(SETTINGS, allow_host_path=True))
    assert problems == ()
    assert job is not None
    assert manifests.head(job, 1)["spec"]["volumes"][-1] == volumes[0]
