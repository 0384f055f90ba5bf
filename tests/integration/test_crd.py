"""The CRD on a real API server: what a user of kubectl sees of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from trainmaster_api.validation.rules import FIXED
from trainmaster_api.validation.schema import apply_defaults, structural
from trainmaster_api.validation.validate import validate
from trainmaster_api.validation.variants import all_rules

from testbed.control_plane import ControlPlane
from testbed.errors import BedError
from tests.unit.api.samples import FIXED_EXAMPLES, FREE, RULE_EXAMPLES, VIT, job

NAMESPACE = "crd-tests"
RULES = {rule.id: rule for rule in all_rules()}


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


@pytest.mark.parametrize("rule_id", RULES)
def test_rule_refuses_in_the_words_of_validate(plane, rule_id):
    bad = RULE_EXAMPLES[rule_id][0]
    (problem,) = validate(bad)[1]
    text = refusal(plane, bad)
    assert f"{problem.path}: Invalid value" in text
    assert problem.message in text
    assert text.count("Invalid value") == 1, text


@pytest.mark.parametrize("rule_id", RULES)
def test_rule_lets_the_good_example_in(plane, rule_id):
    apply(plane, RULE_EXAMPLES[rule_id][1], "--dry-run=server")


@pytest.mark.parametrize("fixed", FIXED, ids=lambda fixed: fixed.field)
def test_fixed_field_cannot_change(plane, fixed):
    before, after = FIXED_EXAMPLES[fixed.field]
    name = {"metadata.name": f"fixed-{fixed.field.replace('.', '-').lower()}"}
    apply(plane, job(before, name))
    with pytest.raises(BedError) as caught:
        # replace: `apply` would merge, and so never take a field out
        plane.kubectl("replace", "-f", "-", stdin=json.dumps(in_namespace(job(before, after, name))))
    assert f"spec.{fixed.field}: Invalid value" in str(caught.value)
    assert fixed.message in str(caught.value)


def test_everything_else_may_change(plane):
    apply(plane, job({"metadata.name": "free"}))
    apply(plane, job(FREE, {"metadata.name": "free"}))
    stored = json.loads(plane.kubectl("get", "tj", "free", "-n", NAMESPACE, "-o", "json"))
    assert stored["spec"]["run"]["suspend"] is True


def test_the_api_server_fills_in_the_same_defaults(plane):
    document = job(VIT, {"metadata.name": "defaults", "spec.training.loop": {"earlyStopping": {}}})
    apply(plane, document)
    stored = json.loads(plane.kubectl("get", "tj", "defaults", "-n", NAMESPACE, "-o", "json"))
    assert stored["spec"] == apply_defaults(document, structural().schema)["spec"]
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
        ({"spec.training.model": {"name": "vit", "args": {"dpeth": 2}}}, "spec.training.model.args.dpeth"),
        ({"spec.tuning": {"trials": 8}}, "spec.tuning"),
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
    assert "vit: Width of a token; a multiple of heads. Default: 64." in " ".join(text.split())
    text = plane.kubectl("explain", "trainingjob.spec.training.model")
    assert "Which model." in text
    assert "enum: cnn, mlp, vit" in text
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
