"""What jobs need around them: a name service, an S3 store with a bucket, and an MLflow server."""

import re
import string
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed import builds
from testbed.errors import BedError
from testbed.procs import run, wait_until

MANIFESTS = Path(__file__).parent / "manifests"
BUCKET = "trainmaster"
S3_USER, S3_PASSWORD = "minioadmin", "minioadmin-secret"
Kubectl = Callable[..., str]


def kubectl_for(kubeconfig: Path) -> Kubectl:
    """A function that runs kubectl against one cluster: ``kubectl("get", "pods", stdin=None)``."""

    def kubectl(*args: str, stdin: str | None = None) -> str:
        return run([str(builds.tool("kubectl")), f"--kubeconfig={kubeconfig}", *args], stdin=stdin)

    return kubectl


def render(name: str, **values: str) -> str:
    """A manifest with its ``${placeholders}`` filled."""
    return string.Template((MANIFESTS / f"{name}.yaml").read_text()).substitute(values)


def dns(kubectl: Kubectl, address: str, nodes: int) -> None:
    """CoreDNS at the service address that the kubelets hand out."""
    manifest = render("coredns", dns_service=address, replicas=str(min(nodes, 2)))
    kubectl("apply", "--server-side", "-f", "-", stdin=manifest)


def wait_deployment(kubectl: Kubectl, namespace: str, name: str, seconds: int) -> None:
    """Wait for a deployment.

    Raises:
        BedError: it is not available in time; the message holds its pods and their last events.
    """
    try:
        kubectl("-n", namespace, "rollout", "status", f"deployment/{name}", f"--timeout={seconds}s")
    except BedError as error:
        pods = kubectl("-n", namespace, "get", "pods", "-o", "wide")
        events = kubectl("-n", namespace, "get", "events", "--sort-by=.lastTimestamp")
        last = "\n".join(events.splitlines()[-8:])
        raise BedError(f"{namespace}/{name} is not available after {seconds} s\n{pods}\n{last}") from error


def minio(kubectl: Kubectl, kubeconfig: Path, node: str) -> None:
    """The S3 store ``http://minio.minio:9000`` with the bucket ``trainmaster``, on one node for good."""
    kubectl("apply", "--server-side", "-f", "-", stdin=render("minio", node=node))
    wait_deployment(kubectl, "minio", "minio", 120)
    with forwarded(kubeconfig, "minio", "service/minio", 9000) as url:
        make_bucket(url)


def make_bucket(url: str) -> None:
    """Create the bucket if it isn't there."""
    # imported here: only this step needs it
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=S3_USER,
        aws_secret_access_key=S3_PASSWORD,
    )
    if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=BUCKET)


def mlflow(kubectl: Kubectl, node: str) -> None:
    """The tracking server ``http://mlflow.mlflow:5000``, from the trainer image, on one node for good."""
    kubectl("apply", "--server-side", "-f", "-", stdin=render("mlflow", node=node))


def wait_mlflow(kubectl: Kubectl, kubeconfig: Path) -> None:
    """Wait until it answers under its service name (a cold start imports for half a minute)."""
    wait_deployment(kubectl, "mlflow", "mlflow", 300)
    with forwarded(kubeconfig, "mlflow", "service/mlflow", 5000) as url:
        request = urllib.request.Request(f"{url}/health", headers={"Host": "mlflow.mlflow:5000"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            if answer.status != 200:
                raise BedError(f"MLflow answers {answer.status} under its service name")


@contextmanager
def forwarded(kubeconfig: Path, namespace: str, target: str, port: int) -> Iterator[str]:
    """A local URL for a service of any cluster, for as long as the block runs."""
    argv = [str(builds.tool("kubectl")), f"--kubeconfig={kubeconfig}", "-n", namespace]
    child = subprocess.Popen([*argv, "port-forward", target, f":{port}"], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        if not found:
            raise BedError(f"cannot forward a port to {namespace}/{target}: {line.strip() or 'see above'}")
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        child.terminate()
        child.wait()


def nodes_ready(kubectl: Kubectl, count: int) -> None:
    """Wait until all nodes are there and ready."""
    registered = wait_until(lambda: len(kubectl("get", "nodes", "-o", "name").split()) >= count, 120, every=0.3)
    if not registered:
        raise BedError(f"fewer than {count} nodes registered within 120 s; see the kubelet logs")
    kubectl("wait", "nodes", "--all", "--for=condition=Ready", "--timeout=120s")
