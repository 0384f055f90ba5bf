"""What the chart creates."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from trainmaster_api import GROUP, PLURAL, __version__
from trainmaster_api.validation.validate import validate
from trainmaster_operator.policy.settings import Settings
from trainmaster_operator.runtime import config
from trainmaster_operator.runtime.endpoint import ADMIT_PATH

from .conftest import CHART, ROOT, Json, Rendered

Render = Callable[..., Rendered]
CRD = f"{PLURAL}.{GROUP}.yaml"


def pods(objects: Rendered) -> list[Json]:
    """Every pod spec that the chart runs."""
    return [objects.one("Deployment")["spec"]["template"]["spec"], objects.one("Pod")["spec"]]


def rules(objects: Rendered, *kinds: str) -> list[Json]:
    return [rule for kind in kinds for role in objects.of(kind) for rule in role["rules"]]


def test_the_charts_crd_is_the_generated_one(default: Rendered) -> None:
    assert (CHART / "files" / CRD).read_text() == (ROOT / "crds" / CRD).read_text(), "run `make crd`"
    rendered, generated = default.one("CustomResourceDefinition"), yaml.safe_load((ROOT / "crds" / CRD).read_text())
    assert rendered["spec"] == generated["spec"]
    assert generated["metadata"]["labels"].items() <= rendered["metadata"]["labels"].items()


def test_crd_can_be_kept_dropped_or_left_out(default: Rendered, render: Render) -> None:
    assert default.one("CustomResourceDefinition")["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    dropped = render(crds__keep=False).one("CustomResourceDefinition")
    assert "helm.sh/resource-policy" not in dropped["metadata"].get("annotations", {})
    assert render(crds__install=False).of("CustomResourceDefinition") == []


def test_pods_pass_pod_security_restricted(default: Rendered) -> None:
    for spec in pods(default):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert {kind for volume in spec["volumes"] for kind in volume} <= {"name", "emptyDir", "secret"}
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert container["resources"]["limits"]["memory"]


def test_nobody_gets_wildcards_or_reads_secrets_of_others(default: Rendered, render: Render) -> None:
    for objects in (default, render(operator__namespaces=["team-a"], tls__existingSecret="t", webhook__enabled=True)):
        for rule in rules(objects, "ClusterRole", "Role"):
            assert "*" not in str(rule)
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
            if "secrets" in rule["resources"]:
                assert rule["verbs"] == ["create"] or rule.get("resourceNames") == ["trainmaster-operator-tls"]
        for rule in rules(objects, "ClusterRole"):
            if "secrets" in rule["resources"]:
                assert rule["verbs"] == ["create"]


def test_operator_understands_every_setting(render: Render, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = render(
        operator__namespaces=["a", "b"],
        operator__replicas=2,
        operator__log={"format": "text", "verbose": True},
        operator__allowHostPath=True,
        defaults={
            "image": "registry.example/trainer:1",
            "storage": {"uri": "s3://bucket/x", "endpoint": "http://s3:9", "region": "eu", "credentialsSecret": "keys"},
            "tracking": [{"mlflow": {"uri": "http://mlflow:5000"}}],
        },
        tls__existingSecret="ours",
        webhook__enabled=True,
        metrics__port=9090,
    )
    for name, value in objects.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TRAINMASTER_NAMESPACE", "trainmaster-system")
    chosen = config.parse([])
    assert chosen.namespaces == ("a", "b")
    assert chosen.defaults.image == "registry.example/trainer:1"
    assert [entry.wire() for entry in chosen.defaults.default_tracking] == [{"mlflow": {"uri": "http://mlflow:5000"}}]
    assert (chosen.defaults.storage_uri, chosen.defaults.storage_endpoint) == ("s3://bucket/x", "http://s3:9")
    assert (chosen.defaults.storage_region, chosen.defaults.storage_credentials_secret) == ("eu", "keys")
    assert (chosen.http_port, chosen.log_format, chosen.verbose) == (9090, "text", True)
    assert chosen.defaults.allow_host_path is True
    assert (chosen.webhook, chosen.lease_name) == ("trainmaster-operator", "trainmaster-operator")
    mounts = {each["mountPath"] for each in pods(objects)[0]["containers"][0]["volumeMounts"]}
    assert chosen.tls_files is not None
    assert {str(file.parent) for file in chosen.tls_files} <= mounts


def test_no_setting_gets_lost(default: Rendered, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [*config.Config.__dataclass_fields__, *Settings.__dataclass_fields__]
    known = {f"TRAINMASTER_{name.upper()}" for name in flags}
    container = pods(default)[0]["containers"][0]
    assert {each["name"] for each in container["env"]} <= known | {"TRAINMASTER_NAMESPACE"}
    for name, value in default.env.items():
        monkeypatch.setenv(name, value)
    chosen = config.parse([])
    assert chosen.defaults.image == "docker.io/trainmaster/trainer:0.1.0"
    assert (chosen.defaults.storage_uri, chosen.defaults.default_tracking, chosen.tls_files, chosen.webhook) == (
        None,
        (),
        None,
        "trainmaster-operator",
    )
    assert chosen.defaults.allow_host_path is False


def test_trainers_and_api_server_find_the_endpoint(render: Render) -> None:
    for objects in (render(webhook__enabled=True), render("other", webhook__enabled=True, service__port=443)):
        service, url = objects.one("Service"), urlsplit(objects.env["TRAINMASTER_PROGRESS_URL"])
        assert url.hostname == f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
        ports = {each["name"]: each for each in service["spec"]["ports"]}
        assert url.port == ports["https"]["port"]
        deployment = objects.one("Deployment")["spec"]["template"]
        named = {port["name"] for port in deployment["spec"]["containers"][0]["ports"]}
        assert {each["targetPort"] for each in ports.values()} <= named
        assert service["spec"]["selector"].items() <= deployment["metadata"]["labels"].items()
        hook = objects.one("ValidatingWebhookConfiguration")
        called = hook["webhooks"][0]["clientConfig"]["service"]
        assert (called["name"], called["port"]) == (service["metadata"]["name"], ports["https"]["port"])
        assert called["path"] == ADMIT_PATH
        assert hook["metadata"]["name"] == objects.env["TRAINMASTER_WEBHOOK"]


def test_rbac_of_selected_namespaces(default: Rendered, render: Render) -> None:
    assert len(default.of("ClusterRoleBinding", "trainmaster-operator")) == 1
    objects = render(operator__namespaces=["team-a", "team-b"], webhook__enabled=True)
    assert objects.of("ClusterRoleBinding", "trainmaster-operator") == []
    bound = [b["metadata"]["namespace"] for b in objects.of("RoleBinding") if b["roleRef"]["kind"] == "ClusterRole"]
    assert bound == ["team-a", "team-b"]
    selector = objects.one("ValidatingWebhookConfiguration")["webhooks"][0]["namespaceSelector"]
    assert selector["matchExpressions"][0]["values"] == ["team-a", "team-b"]
    assert objects.one("Role", "trainmaster-operator-test")["metadata"]["namespace"] == "team-a"


def test_the_webhook_is_on_and_can_never_stand_in_the_way(default: Rendered) -> None:
    (hook,) = default.one("ValidatingWebhookConfiguration")["webhooks"]
    assert (hook["failurePolicy"], hook["sideEffects"]) == ("Ignore", "None")
    assert hook["timeoutSeconds"] <= 5
    assert hook["rules"][0]["resources"] == ["trainingjobs"], "status writes don't pass through it"
    assert default.env["TRAINMASTER_WEBHOOK"] == "trainmaster-operator"
    own = [rule for rule in rules(default, "ClusterRole") if "webhook" in str(rule["resources"])]
    assert [rule["resourceNames"] for rule in own] == [["trainmaster-operator"]]


def test_rbac_without_webhook(render: Render) -> None:
    objects = render(webhook__enabled=False)
    assert objects.of("ValidatingWebhookConfiguration") == []
    assert "TRAINMASTER_WEBHOOK" not in objects.env
    assert "admissionregistration.k8s.io" not in str(rules(objects, "ClusterRole"))


def test_budget_comes_with_the_second_replica(default: Rendered, render: Render) -> None:
    assert default.of("PodDisruptionBudget") == []
    budget = render(operator__replicas=2).one("PodDisruptionBudget")
    assert budget["spec"]["selector"]["matchLabels"] == default.one("Deployment")["spec"]["selector"]["matchLabels"]


def test_service_monitor_scrapes_the_metrics_port(default: Rendered, render: Render) -> None:
    assert default.of("ServiceMonitor") == []
    objects = render(metrics__serviceMonitor={"enabled": True, "interval": "10s", "labels": {"release": "prom"}})
    monitor = objects.one("ServiceMonitor")
    assert monitor["spec"]["endpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "10s"}]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= objects.one("Service")["metadata"]["labels"].items()
    assert monitor["metadata"]["labels"]["release"] == "prom"


def test_pod_settings_arrive(render: Render) -> None:
    given: dict[str, Any] = {
        "priorityClassName": "high",
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "k", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    }
    objects = render(
        operator={
            **given,
            "imagePullSecrets": ["pull"],
            "podLabels": {"team": "ml"},
            "podAnnotations": {"a": "b"},
            "image": {"digest": "sha256:" + "0" * 64},
        },
    )
    template = objects.one("Deployment")["spec"]["template"]
    spec = template["spec"]
    spread = spec.pop("topologySpreadConstraints")
    selector = objects.one("Deployment")["spec"]["selector"]
    assert spread == [{**given.pop("topologySpreadConstraints")[0], "labelSelector": selector}]
    assert given.items() <= spec.items()
    assert [each["imagePullSecrets"] for each in pods(objects)] == [[{"name": "pull"}]] * 2
    assert spec["containers"][0]["image"] == "docker.io/trainmaster/operator@sha256:" + "0" * 64
    assert template["metadata"]["labels"]["team"] == "ml"
    assert template["metadata"]["annotations"] == {"a": "b"}


@pytest.mark.parametrize("release", ["trainmaster", "x", "a" * 53])
def test_object_names_fit_their_limits(render: Render, release: str) -> None:
    for each in render(release):
        assert len(each["metadata"]["name"]) <= 63
        assert not each["metadata"]["name"].endswith("-")


def test_two_renderings_are_equal(default: Rendered, render: Render) -> None:
    assert render() == default  # or every sync of a GitOps tool would restart the operator


def test_the_test_beds_values_name_its_images(render: Render) -> None:
    objects = render(files=(ROOT / "testbed" / "values.yaml",))
    assert pods(objects)[0]["containers"][0]["image"] == "docker.io/trainmaster/operator:dev"
    assert objects.env["TRAINMASTER_IMAGE"] == "docker.io/trainmaster/trainer:dev"
    assert objects.env["TRAINMASTER_STORAGE_URI"] == "s3://trainmaster/runs"


def test_notes_say_what_to_type_next(helm: Callable[..., str], tmp_path: Path) -> None:
    # `helm template` leaves the notes out, and `helm install --dry-run` wants a cluster: render them as an object
    chart = shutil.copytree(CHART, tmp_path / "chart")
    (chart / "templates" / "NOTES.txt").rename(chart / "NOTES.txt")
    (chart / "templates" / "notes.yaml").write_text('text: {{ tpl (.Files.Get "NOTES.txt") . | toJson }}')
    args = ["template", "trainmaster", str(chart), "-n", "ns", "--kube-version", "1.34.0", "-s", "templates/notes.yaml"]
    notes = yaml.safe_load(helm(*args))["text"]
    assert "kubectl apply -f examples/digits/trainingjob.yaml" in notes
    assert "--set defaults.storage.uri=" in notes
    assert "helm test trainmaster -n ns --logs --timeout 660s" in notes
    full = yaml.safe_load(helm(*args, "-f", str(ROOT / "testbed" / "values.yaml")))["text"]
    assert "kubectl create secret generic minio" in full
    assert "defaults.storage.uri" not in full


def test_the_only_hook_is_the_test_pod(default: Rendered) -> None:
    assert [each["kind"] for each in default if "helm.sh/hook" in each["metadata"].get("annotations", {})] == ["Pod"]
    code = default.one("Pod")["spec"]["containers"][0]["command"][-1]
    assert code.strip() == (CHART / "files" / "smoke.py").read_text().strip()


def test_the_test_job_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SMOKE_NAMESPACE": "ns", "POD_UID": "0123456789ab", "SMOKE_SECONDS": "5"}.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("smoke", CHART / "files" / "smoke.py")
    assert spec is not None
    assert spec.loader is not None
    smoke = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "smoke", smoke)
    spec.loader.exec_module(smoke)
    job, problems = validate(smoke.JOB)
    assert problems == []
    assert job is not None
    assert job.metadata.name == "smoke-01234567"


def test_chart_and_packages_have_one_version() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__
