"""The chart on a real kube-apiserver: what it accepts, what the operator may do, what an uninstall leaves."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from testbed import builds
from testbed.control_plane import ControlPlane
from tests.factories import make_job

CHART = Path(__file__).parents[2] / "charts" / "trainmaster"
EVERYTHING = ("--set", "webhook.enabled=true,operator.replicas=2")
SYSTEM, NAME = "trainmaster-system", "trainmaster-operator"
JOB = make_job(
    {
        "metadata.namespace": "default",
        "spec.training.task.numClasses": 3,
        "spec.training.data": {"source": "sklearn:iris", "batchSize": 16},
    },
    name="kept",
)
Run = Callable[..., str]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    # one of its own: Helm must be the one who creates the CRD
    with ControlPlane() as plane:
        yield plane


def runner(plane: ControlPlane, name: str) -> Run:
    binary = str(builds.tool(name))

    def run(*args: str, stdin: str | None = None, fails: bool = False) -> str:
        argv = [binary, "--kubeconfig", str(plane.kubeconfig), *args]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=120)
        assert bool(done.returncode) == fails, f"{argv}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def kubectl(plane: ControlPlane) -> Run:
    return runner(plane, "kubectl")


@pytest.fixture(scope="module")
def helm(plane: ControlPlane) -> Run:
    return runner(plane, "helm")


@pytest.fixture(scope="module")
def installed(kubectl: Run, helm: Run) -> None:
    kubectl("create", "namespace", SYSTEM)
    kubectl("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted")
    kubectl("create", "namespace", "team-a")
    helm("install", "trainmaster", str(CHART), "-n", SYSTEM, *EVERYTHING)


def test_api_server_takes_every_object_without_a_warning(kubectl: Run, helm: Run) -> None:
    kubectl("create", "namespace", "strict")
    text = helm("template", "strict", str(CHART), "-n", "strict", "--skip-tests", *EVERYTHING)
    said = kubectl("apply", "--dry-run=server", "--validate=strict", "-n", "strict", "-f", "-", stdin=text)
    assert "Warning" not in said
    assert "unknown field" not in said


def test_pods_are_admitted_under_restricted(kubectl: Run, helm: Run, installed: None) -> None:
    text = helm("get", "manifest", "trainmaster", "-n", SYSTEM) + helm("get", "hooks", "trainmaster", "-n", SYSTEM)
    objects = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text) if each}
    operator = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "o"}}
    operator["spec"] = objects["Deployment", NAME]["spec"]["template"]["spec"]
    for pod in (operator, objects["Pod", f"{NAME}-test"]):
        kubectl("create", "--dry-run=server", "-n", SYSTEM, "-f", "-", stdin=yaml.safe_dump(pod))
    operator["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    refused = kubectl("create", "--dry-run=server", "-n", SYSTEM, "-f", "-", stdin=yaml.safe_dump(operator), fails=True)
    assert "violates PodSecurity" in refused  # the check itself works


@pytest.mark.parametrize(
    ("verb", "what", "namespace", "allowed"),
    [
        ("watch", "trainingjobs.trainmaster.dev", "", True),
        ("delete", "trainingjobs.trainmaster.dev", "team-a", True),
        ("update", "trainingjobs.trainmaster.dev/status", "team-a", True),
        ("patch", "trainingjobs.trainmaster.dev/status", "team-a", False),
        ("create", "pods", "team-a", True),
        ("list", "pods", "", True),
        ("delete", "pods", "team-a", True),
        ("create", "services", "team-a", True),
        ("create", "secrets", "team-a", True),
        ("create", "events", "team-a", True),
        ("create", "tokenreviews.authentication.k8s.io", "", True),
        ("create", "leases.coordination.k8s.io", SYSTEM, True),
        ("update", f"leases.coordination.k8s.io/{NAME}", SYSTEM, True),
        ("get", f"secrets/{NAME}-tls", SYSTEM, True),
        ("update", f"secrets/{NAME}-tls", SYSTEM, True),
        ("update", f"validatingwebhookconfigurations.admissionregistration.k8s.io/{NAME}", "", True),
        ("get", "secrets", "team-a", False),
        ("list", "secrets", "", False),
        ("get", "secrets/other", SYSTEM, False),
        ("delete", "secrets", "team-a", False),
        ("update", "trainingjobs.trainmaster.dev", "team-a", False),
        ("update", "pods", "team-a", False),
        ("patch", "pods", SYSTEM, False),
        ("create", "pods/exec", "team-a", False),
        ("update", "leases.coordination.k8s.io/other", SYSTEM, False),
        ("update", "validatingwebhookconfigurations.admissionregistration.k8s.io/other", "", False),
        ("create", "clusterroles.rbac.authorization.k8s.io", "", False),
    ],
)
def test_what_the_operator_may_do(
    kubectl: Run, installed: None, verb: str, what: str, namespace: str, allowed: bool
) -> None:
    resource, _, rest = what.partition("/")
    subresource = rest if rest in ("status", "exec") else ""
    target = [resource if subresource or not rest else what, *([f"--subresource={subresource}"] if subresource else [])]
    where = ["-n", namespace] if namespace else ["--all-namespaces"]
    who = f"--as=system:serviceaccount:{SYSTEM}:{NAME}"
    answer = kubectl("auth", "can-i", verb, *target, *where, who, fails=not allowed).split()[-1]
    assert answer == ("yes" if allowed else "no")


@pytest.mark.parametrize(("role", "verb", "allowed"), [("view", "get", True), ("view", "create", False)])
def test_users_roles_are_aggregated(kubectl: Run, installed: None, role: str, verb: str, allowed: bool) -> None:
    labels = kubectl("get", "clusterrole", f"{NAME}-{role}", "-o", "jsonpath={.metadata.labels}")
    assert f"rbac.authorization.k8s.io/aggregate-to-{role}" in labels
    rules = kubectl("get", "clusterrole", f"{NAME}-{role}", "-o", "jsonpath={.rules[*].verbs}")
    assert (verb in rules) is allowed


def test_crd_and_jobs_survive_upgrade_uninstall_and_reinstall(kubectl: Run, helm: Run, installed: None) -> None:
    # no operator answers here, and a webhook that can't be reached is ignored
    kubectl("create", "-f", "-", stdin=yaml.safe_dump(JOB))
    uid = kubectl("get", "tj", "kept", "-o", "jsonpath={.metadata.uid}")
    helm("upgrade", "trainmaster", str(CHART), "-n", SYSTEM, "--set", "operator.log.verbose=true")
    assert "trainmaster" in kubectl("get", "validatingwebhookconfigurations", "-o", "name")
    helm("upgrade", "trainmaster", str(CHART), "-n", SYSTEM, "--set", "webhook.enabled=false")
    assert "trainmaster" not in kubectl("get", "validatingwebhookconfigurations", "-o", "name")
    assert "trainingjobs.trainmaster.dev" in helm("uninstall", "trainmaster", "-n", SYSTEM)  # it says what it keeps
    assert kubectl("get", "tj", "kept", "-o", "jsonpath={.metadata.uid}") == uid
    assert NAME not in kubectl("get", "clusterroles,clusterrolebindings", "-o", "name")
    kinds = "deployments,services,roles,rolebindings,serviceaccounts,poddisruptionbudgets"
    left = kubectl("get", kinds, "-n", SYSTEM, "-l", "app.kubernetes.io/instance=trainmaster")
    assert "No resources found" in left
    helm("install", "trainmaster", str(CHART), "-n", SYSTEM)
    assert kubectl("get", "tj", "kept", "-o", "jsonpath={.metadata.uid}") == uid


def test_without_keep_the_crd_goes_with_the_release(kubectl: Run, helm: Run, installed: None) -> None:
    helm("upgrade", "--install", "trainmaster", str(CHART), "-n", SYSTEM, "--set", "crds.keep=false")
    helm("uninstall", "trainmaster", "-n", SYSTEM)
    kubectl("wait", "--for=delete", "crd/trainingjobs.trainmaster.dev", "--timeout=60s")


def test_a_packaged_chart_installs(kubectl: Run, helm: Run, installed: None, tmp_path: Path) -> None:
    chart = shutil.copytree(CHART, tmp_path / "trainmaster")
    helm("package", str(chart), "-d", str(tmp_path))
    text = helm("template", "packed", str(next(tmp_path.glob("*.tgz"))))
    assert "kind: CustomResourceDefinition" in text
    assert "trainmaster-helm-test" in text  # files of the chart are in it
