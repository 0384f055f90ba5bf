"""Code that a job carries: in the run's Secret, and its checksum alone in the pods."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from typing import Any

import pytest
from trainmaster_api import names
from trainmaster_api.spec.code import INLINE_LIMIT
from trainmaster_api.validation.admission import admit
from trainmaster_api.validation.validate import validate
from trainmaster_operator import manifests
from trainmaster_operator.manifests.resolve import settings_problems

from .test_golden import PLAIN, SETTINGS

ARCHIVE = bytes(range(256)) * (INLINE_LIMIT // 256)  # as large as one may be
INLINE = {"sha256": hashlib.sha256(ARCHIVE).hexdigest(), "data": base64.b64encode(ARCHIVE).decode()}


def coded(**code: Any) -> dict[str, Any]:
    document = copy.deepcopy(PLAIN)
    document["spec"]["training"]["code"] = code
    return document


def resolved() -> Any:
    job, problems = manifests.resolve(coded(inline=INLINE), SETTINGS)
    assert not problems
    return job


def test_the_secret_has_the_archive() -> None:
    secret = manifests.secret(resolved(), SETTINGS, "key")
    assert base64.b64decode(secret["data"][names.KEY_CODE]) == ARCHIVE
    assert names.KEY_RAY in secret["stringData"]
    plain, _ = manifests.resolve(PLAIN, SETTINGS)
    assert plain is not None
    assert "data" not in manifests.secret(plain, SETTINGS, "key")


@pytest.mark.parametrize("make", [lambda job: manifests.head(job, 1), lambda job: manifests.worker(job, 1, 0)])
def test_the_pods_have_the_checksum_alone(make: Any) -> None:
    annotations = make(resolved())["metadata"]["annotations"]
    assert sum(map(len, annotations.values())) < 16 * 1024, "all annotations of a pod may have 256 KiB"
    code = json.loads(annotations[names.ANNOTATION_JOB])["spec"]["training"]["code"]
    assert code == {"inline": {"sha256": INLINE["sha256"], "data": ""}}


def test_a_folder_on_a_laptop_is_rejected() -> None:
    job, (problem,) = manifests.resolve(coded(path="./src"), SETTINGS)
    assert job is None
    assert str(problem) == (
        'spec.training.code.path = "./src": is a folder on your disk, which the cluster can\'t read; '
        "`trainmaster submit FILE` packs and sends it"
    )
    assert validate(coded(path="./src"))[1] == [], "on a laptop it is what one writes"
    review = {"request": {"uid": "1", "operation": "CREATE", "object": coded(path="./src")}}
    answer = admit(review, more=lambda raw: settings_problems(raw, SETTINGS))["response"]
    assert not answer["allowed"]
    assert "`trainmaster submit FILE`" in answer["status"]["message"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": ""}, "spec.training.code.inline.sha256"),
        ({"data": "AAA"}, "is not base64 (Incorrect padding)"),
        ({"sha256": "0" * 64}, "is not that of `data`, which has"),
    ],
)
def test_damaged_code_is_rejected(change: dict[str, str], sentence: str) -> None:
    job, (problem,) = manifests.resolve(coded(inline={**INLINE, **change}), SETTINGS)
    assert job is None
    assert sentence in str(problem)
    assert "trainmaster submit" in str(problem)


def test_the_secret_has_the_commit() -> None:
    document = coded(inline=INLINE)
    document["metadata"]["annotations"] = {names.ANNOTATION_GIT: "abc=", "other": "x"}
    job, _ = manifests.resolve(document, SETTINGS)
    assert job is not None
    assert manifests.secret(job, SETTINGS, "key")["stringData"][names.KEY_GIT] == "abc="
    document["metadata"]["annotations"] = {names.ANNOTATION_GIT: "a" * (names.MOST_GIT_STATE + 1)}
    job, _ = manifests.resolve(document, SETTINGS)
    assert job is not None
    assert names.KEY_GIT not in manifests.secret(job, SETTINGS, "key")["stringData"], "too long for a state"
