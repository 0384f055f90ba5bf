"""The same cluster by kind, for people with Docker: same images, same manifests, another way to get nodes."""

import shutil
import tempfile
from collections.abc import Iterable

import yaml

from testbed import addons, images, paths
from testbed.builds import say
from testbed.errors import BedError
from testbed.oci import image_name
from testbed.procs import run

CLUSTER = "trainmaster"
NODE_IMAGE = "kindest/node:v1.34.0"


def config(nodes: int) -> dict[str, object]:
    """Kind's cluster description: one control plane, `nodes` workers."""
    roles = [{"role": "control-plane"}, *({"role": "worker"} for _ in range(nodes))]
    return {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": roles}


def up(nodes: int) -> None:
    """Create the cluster if it isn't there, build and load the images, deploy MinIO and MLflow.

    Raises:
        BedError: kind or Docker is missing, or one of their commands failed.
    """
    for tool in ("kind", "docker"):
        if not shutil.which(tool):
            raise BedError(f"PROVIDER=kind needs `{tool}` on the PATH; without it use PROVIDER=bed (Linux, root)")
    kubeconfig = paths.cache_dir() / "kind" / "kubeconfig"
    kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    if CLUSTER not in run(["kind", "get", "clusters"]).split():
        description = yaml.safe_dump(config(nodes))
        argv = ["kind", "create", "cluster", "--name", CLUSTER, "--image", NODE_IMAGE, "--config", "-"]
        run([*argv, "--kubeconfig", str(kubeconfig)], stdin=description)
    build(images.OURS)
    run(["kind", "load", "docker-image", *map(image_name, images.OURS), "--name", CLUSTER])
    _load_scratch()
    kubectl = addons.kubectl_for(kubeconfig)
    first = f"{CLUSTER}-worker"
    addons.mlflow(kubectl, first)
    addons.minio(kubectl, kubeconfig, first)
    addons.wait_mlflow(kubectl, kubeconfig)
    say("up")
    print(f"export KUBECONFIG={kubeconfig}")


def build(names: Iterable[str]) -> None:
    """Build our images with Docker, which pulls their base itself."""
    for short in names:
        dockerfile = paths.REPO / "images" / short / "Dockerfile"
        say(f"docker build {image_name(short)}")
        run(["docker", "build", "-t", image_name(short), "-f", str(dockerfile), str(paths.REPO)])


def _load_scratch() -> None:
    images.build_scratch(("minio",))
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        images.layout().write_archive(image_name("minio"), archive)
        archive.flush()
        run(["kind", "load", "image-archive", archive.name, "--name", CLUSTER])


def down() -> None:
    """Delete the kind cluster."""
    run(["kind", "delete", "cluster", "--name", CLUSTER])
