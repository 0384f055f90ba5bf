"""The CRD on a real API server: what a user of kubectl sees of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from trainmaster_api.address import PATTERN_MESSAGE
from trainmaster_api.spec.job import Spec
from trainmaster_api.validation.constraints import TRANSITIONS
from trainmaster_api.validation.fields import fill_defaults
from trainmaster_api.validation.validate import validate

from testbed.control_plane import ControlPlane
from testbed.errors import BedError
from tests.unit.api.samples import (
    ALL_EXAMPLES,
    CEL_EXAMPLES,
    CHECK_EXAMPLES,
    DURATIONS,
    FIXED_EXAMPLES,
    FREE,
    PART_EXAMPLES,
    TRAINING_EXAMPLES,
    VIT,
    job,
)

NAMESPACE = "crd-tests"


@pytest.fixture(scope="module")
def plane(crd_plane: ControlPlane) -> Iterator[ControlPlane]:
    crd_plane.kubectl("create", "namespace", NAMESPACE)
    yield crd_plane
    crd_plane.kubectl("delete", "tj", "--all", "-n", NAMESPACE)
    crd_plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def in_namespace(document: dict) -> dict:
    return {**document, "metadata": {**document["metadata"], "namespace": NAMESPACE}}


def apply(plane: ControlPlane, document: dict, *flags: str) -> str:
    return plane.kubectl("apply", "-f", "-", *flags, stdin=json.dumps(in_namespace(document)))


def refusal(plane: ControlPlane, document: dict) -> str:
    """What the API server says against a job; nothing is stored."""
    with pytest.raises(BedError) as caught:
        plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(in_namespace(document)))
    return str(caught.value)


@pytest.mark.parametrize("example", CEL_EXAMPLES)
def test_rule_refuses_in_the_words_of_validate(plane, example):
    path, bad, _ = CEL_EXAMPLES[example]
    (problem,) = validate(bad)[1]
    assert problem.path == path
    text = refusal(plane, bad)
    assert f"{problem.path}: Invalid value" in text
    assert problem.message in text
    assert text.count("Invalid value") == 1, text


@pytest.mark.parametrize("example", CEL_EXAMPLES)
def test_rule_lets_the_good_example_in(plane, example):
    apply(plane, CEL_EXAMPLES[example][2], "--dry-run=server")


def test_checks_left_to_the_operator(plane):
    """The API server lets it in; `Accepted=False` and `trainmaster validate` name the problem."""
    left = [bad for _, bad, _ in PART_EXAMPLES.values()]
    left += [bad for examples in CHECK_EXAMPLES.values() for _, bad, _ in examples]
    documents = [in_namespace({**document, "metadata": {"name": f"left-{n}"}}) for n, document in enumerate(left)]
    listed = {"apiVersion": "v1", "kind": "List", "items": documents}
    answer = plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(listed))
    assert answer.count("created") == len(left)


def test_what_validate_accepts_the_api_server_accepts(plane):
    """Also what is open in the CRD: arguments of any depth, nulls in them, numbers of any size."""
    good = [document for _, _, document in ALL_EXAMPLES.values()]
    odd = {"deep": [{"a": None}], "long": "x" * 10_000, "big": 2**62, "small": 1e-300, "": {}, "a.b/c": True}
    good += [job({"spec.training.model": {"class": "my_pkg:Net", "args": odd}})]
    good += [job({"spec.training.data": {"class": "my_pkg:Rows", "args": odd}})]
    good += [job({"spec.run": {"suspend": None}, "spec.training.model.args": {"dropout": None}})]
    assert [validate(document)[1] for document in good] == [[]] * len(good)
    documents = [in_namespace({**document, "metadata": {"name": f"good-{n}"}}) for n, document in enumerate(good)]
    listed = {"apiVersion": "v1", "kind": "List", "items": documents}
    answer = plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(listed))
    assert answer.count("created") == len(good)


def replace(plane: ControlPlane, document: dict) -> None:
    """Change an object as a whole: `apply` would merge, and so never take a field out."""
    plane.kubectl("replace", "-f", "-", stdin=json.dumps(in_namespace(document)))


@pytest.mark.parametrize("rule", TRANSITIONS, ids=lambda rule: rule.field)
def test_fixed_field_cannot_change(plane, rule):
    before, after = FIXED_EXAMPLES[rule.field]
    name = {"metadata.name": f"fixed-{rule.field.replace('.', '-').lower()}"}
    apply(plane, job(before, name))
    with pytest.raises(BedError) as caught:
        replace(plane, job(before, after, name))
    assert f"spec.{rule.field}: Invalid value" in str(caught.value)
    assert rule.message in str(caught.value)


@pytest.mark.parametrize("number", range(len(TRAINING_EXAMPLES)))
def test_no_part_of_the_training_can_change(plane, number):
    before, after = TRAINING_EXAMPLES[number]
    name = {"metadata.name": f"training-{number}"}
    apply(plane, job(before, name))
    with pytest.raises(BedError, match=r"spec\.training: Invalid value"):
        replace(plane, job(before, after, name))
    replace(plane, job(before, name, {"spec.run.suspend": True}))


@pytest.mark.parametrize(("before", "after", "allowed"), DURATIONS)
def test_a_run_may_be_made_longer(plane, before, after, allowed):
    name = {"metadata.name": f"longer-{before}-{after}"}
    apply(plane, job(name, {"spec.training.loop.duration": before}))
    longer = job(name, {"spec.training.loop.duration": after})
    if allowed:
        replace(plane, longer)
        return
    with pytest.raises(BedError, match=r"spec\.training\.loop\.duration: Invalid value.*may only be raised"):
        replace(plane, longer)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"spec.training.model": {"class": "my_pkg.Net"}}, "spec.training.model.class"),
        ({"spec.training.model": {"class": "my_pkg:1Net"}}, "spec.training.model.class"),
        ({"spec.training.model": {"name": "my net"}}, "spec.training.model.name"),
        ({"spec.training.model": {"name": "mlp", "args": [1]}}, "spec.training.model.args"),
        ({"spec.training.optimizer": {"name": "adamw", "lr": 0}}, "spec.training.optimizer.lr"),
        ({"spec.training.task": {"name": "clustering"}}, "spec.training.task.name"),
        ({"spec.training.data.batchSize": 0}, "spec.training.data.batchSize"),
        ({"spec.training.loop.duration": "20"}, "spec.training.loop.duration"),
        ({"spec.cluster.workers.count": 5000}, "spec.cluster.workers.count"),
    ],
)
def test_structure_and_bounds_are_in_the_crd(plane, change, path):
    assert path in refusal(plane, job(change))
    assert path in [problem.path for problem in validate(job(change))[1]]


def test_everything_else_may_change(plane):
    apply(plane, job({"metadata.name": "free"}))
    apply(plane, job(FREE, {"metadata.name": "free"}))
    stored = json.loads(plane.kubectl("get", "tj", "free", "-n", NAMESPACE, "-o", "json"))
    assert stored["spec"]["run"]["suspend"] is True


def test_the_api_server_fills_in_the_same_defaults(plane):
    document = job(VIT, {"metadata.name": "defaults", "spec.training.loop": {"earlyStopping": {}}})
    apply(plane, document)
    stored = json.loads(plane.kubectl("get", "tj", "defaults", "-n", NAMESPACE, "-o", "json"))
    assert stored["spec"] == fill_defaults(document["spec"], Spec)
    found, problems = validate(stored)
    assert not problems
    assert found is not None
    assert found.wire()["spec"] == validate(document)[0].wire()["spec"]


def test_many_problems_are_named_at_once(plane):
    text = refusal(plane, job({"spec.cluster.workers.count": 3, "spec.training.data.split": {"train": 0.5}}))
    assert "is not a multiple of 3 workers x 1 gradientAccumulation; next is 33" in text
    assert "must add up to 1" in text


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"spec.training.model": {"name": "vit", "depth": 2}}, "spec.training.model.depth"),
        ({"spec.training.task.labelSmoothing": 0.1}, "spec.training.task.labelSmoothing"),
        ({"spec.tuning": {"space": {}, "trials": 8}}, "spec.tuning.trials"),
        ({"spec.evaluation": {}}, "spec.evaluation"),
        ({"spec.export": {}}, "spec.export"),
    ],
)
def test_an_unknown_field_is_named_by_strict_validation(plane, change, path):
    assert f'unknown field "{path}"' in refusal(plane, job(change))


def test_quantities_are_numbers_or_text(plane):
    apply(plane, job({"spec.cluster.workers": {"cpus": 2, "memory": "2Gi"}}), "--dry-run=server")
    assert "spec.cluster.workers.cpus" in refusal(plane, job({"spec.cluster.workers.cpus": -1}))
    text = refusal(plane, job({"spec.cluster.workers.memory": "2GB"}))
    assert "spec.cluster.workers.memory: Invalid value" in text
    assert "must be a quantity such as 500m, 2, 2Gi" in text


def test_pod_settings_are_kept_as_they_are(plane):
    spec = {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "large"}],
        "fieldOfALaterKubernetes": {"kept": [1]},
    }
    template = {"metadata": {"labels": {"team": "vision"}}, "spec": spec}
    apply(plane, job({"metadata.name": "template", "spec.cluster.head.template": template}))
    stored = json.loads(plane.kubectl("get", "tj", "template", "-n", NAMESPACE, "-o", "json"))
    assert stored["spec"]["cluster"]["head"]["template"]["spec"] == spec
    assert stored["spec"]["cluster"]["head"]["template"]["metadata"]["labels"] == {"team": "vision"}


def test_explain_describes_every_level(plane):
    text = plane.kubectl("explain", "trainingjob.spec.training.model.args")
    assert "docs/api.md" in text
    text = plane.kubectl("explain", "trainingjob.spec.training.model")
    assert "The model, trained by our loop" in text
    assert "cnn, mlp, transformer, vit; or `package/name` of an installed package" in " ".join(text.split())
    text = plane.kubectl("explain", "trainingjob.spec.training.optimizer.lr")
    assert "Default: 0.001 (adamw), 0.1 (sgd)." in " ".join(text.split())
    assert "One training run" in plane.kubectl("explain", "tj")


def test_columns_short_name_category_and_status(plane):
    apply(plane, job({"metadata.name": "columns"}))
    status = {
        "phase": "Running",
        "reason": "Training",
        "workersReady": "2/2",
        "restarts": {"total": 1},
        "progress": {"percent": "42%", "eta": "3m20s", "metric": "val/loss=0.123"},
        "lastCheckpoint": {"step": 7, "attempt": 1, "uri": "s3://b/c", "time": "2020-01-01T00:00:00Z"},
    }
    patch = json.dumps({"status": status, "spec": {"run": {"suspend": True}}})
    plane.kubectl("patch", "tj", "columns", "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", patch)
    head, row = plane.kubectl("get", "tj", "columns", "-n", NAMESPACE).splitlines()
    names = ["NAME", "PHASE", "WORKERS", "PROGRESS", "ETA", "METRIC", "RESTARTS", "CHECKPOINT", "AGE"]
    assert head.split() == names
    values = dict(zip(names, row.split(), strict=True))
    assert values["PHASE"] == "Running"
    assert (values["WORKERS"], values["PROGRESS"], values["ETA"]) == ("2/2", "42%", "3m20s")
    assert (values["METRIC"], values["RESTARTS"]) == ("val/loss=0.123", "1")
    assert re.fullmatch(r"[0-9]+y([0-9]+d)?", values["CHECKPOINT"]), "an age, counted from the checkpoint's time"
    wide = plane.kubectl("get", "tj", "columns", "-n", NAMESPACE, "-o", "wide").splitlines()
    assert wide[0].split()[-1] == "REASON"
    assert wide[1].split()[-1] == "Training"
    assert "columns" in plane.kubectl("get", "ml", "-n", NAMESPACE)
    stored = json.loads(plane.kubectl("get", "tj", "columns", "-n", NAMESPACE, "-o", "json"))
    assert stored["spec"]["run"]["suspend"] is False, "the status subresource doesn't change the spec"


@pytest.mark.parametrize(
    "file", sorted(Path(__file__).parents[2].glob("examples/*/*.yaml")), ids=lambda f: f.parent.name
)
def test_example_is_accepted(plane, file):
    plane.kubectl("apply", "--dry-run=server", "-n", NAMESPACE, "-f", str(file))


@pytest.mark.parametrize("path", ["spec.storage.uri", "spec.run.resumeFrom"])
def test_address_ambiguous_is_refused(plane, path):
    for uri in (
        "s3://runs/exp#1",
        "s3://runs/exp?1",
        "s3://runs//x",
        "s3:/runs/x",
        "s3://runs/../x",
        "/mnt/runs ",
        "runs",
    ):
        text = refusal(plane, job({path: uri}))
        assert f"{path}: Invalid value" in text
        assert PATTERN_MESSAGE in text
        assert "[^/" not in text, "no regular expression"
    for uri in ("s3://runs/a b/..c/", "/mnt/run #1?", "file:///mnt/runs/"):
        apply(plane, job({path: uri}), "--dry-run=server")
