"""The text that the bed hands to other programs, as far as it can be checked without running them."""

import json
import tomllib
from pathlib import Path

import pytest
import yaml

from testbed import addons, cgroups, images, kind
from testbed.node import cni_config, containerd_config
from testbed.plan import Plan


def test_containerd_oom_scores_without_privileges() -> None:
    parsed = tomllib.loads(containerd_config(Path("/r"), Path("/s"), Path("/c"), oom_scores=False))
    cri = parsed["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["restrict_oom_score_adj"] is True
    assert cri["netns_mounts_under_state_dir"] is True
    assert cri["sandbox_image"] == "docker.io/trainmaster/pause:dev"
    parsed = tomllib.loads(containerd_config(Path("/r"), Path("/s"), Path("/c"), oom_scores=True))
    assert parsed["plugins"]["io.containerd.grpc.v1.cri"]["restrict_oom_score_adj"] is False


def test_a_node_gives_out_its_own_subnet_only() -> None:
    first, second = Plan.of("tm", 2).nodes
    ranges = [json.loads(cni_config(n, Path("/d")))["plugins"][0]["ipam"]["ranges"] for n in (first, second)]
    assert ranges == [[[{"subnet": "10.244.1.0/24"}]], [[{"subnet": "10.244.2.0/24"}]]]


@pytest.mark.parametrize("name", ["coredns", "minio", "mlflow"])
def test_manifests_are_complete(name: str) -> None:
    documents = list(yaml.safe_load_all(addons.render(name, dns_service="10.96.0.10", replicas="2", node="n1")))
    workloads = [document for document in documents if document["kind"] == "Deployment"]
    assert len(workloads) == 1
    for container in workloads[0]["spec"]["template"]["spec"]["containers"]:
        # there is no registry to pull from
        assert container["imagePullPolicy"] == "IfNotPresent"
        assert container["image"].startswith("docker.io/trainmaster/")
    namespaces = {document["metadata"].get("namespace") for document in documents} - {None}
    assert namespaces == {"kube-system" if name == "coredns" else name}


def test_cgroup_hierarchies_of_both_kinds() -> None:
    mounts = (
        "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"
        "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n/dev/vda / ext4 rw 0 0\n"
    )
    assert cgroups.hierarchies(mounts) == [Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/unified")]


def test_what_a_dockerfile_takes_from_the_checkout() -> None:
    text = "FROM x AS deps\nCOPY a \\\n  b /tmp/\nADD --chown=1:1 crds /opt\nCOPY --from=deps /o /o\nRUN COPY\n"
    assert images.copy_sources(text) == ["a", "b", "crds"]


def test_an_image_is_rebuilt_when_its_inputs_change(tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM x\nCOPY code /code\n")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("1")
    (tmp_path / "other.txt").write_text("1")
    key = images.inputs_key(dockerfile, tmp_path)
    (tmp_path / "other.txt").write_text("2")
    assert images.inputs_key(dockerfile, tmp_path) == key
    (tmp_path / "code" / "a.py").write_text("2")
    assert images.inputs_key(dockerfile, tmp_path) != key


def test_kind_gets_as_many_workers_as_the_bed_nodes() -> None:
    roles = kind.config(2)["nodes"]
    assert roles == [{"role": "control-plane"}, {"role": "worker"}, {"role": "worker"}]
