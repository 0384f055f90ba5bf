import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import builds
from testbed.errors import BedError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def gomod(tmp_path: Path) -> Path:
    copy = tmp_path / "gomod"
    shutil.copytree(builds.GOMOD, copy)
    return copy


def test_the_key_follows_what_goes_into_a_binary(gomod: Path) -> None:
    etcd, before = builds.TOOLS["etcd"], builds.key(builds.TOOLS["etcd"], gomod)
    assert before == builds.key(etcd)
    (gomod / "minio" / "go.sum").write_text("another module")
    assert builds.key(etcd, gomod) == before
    with (gomod / "kubernetes" / "go.sum").open("a") as sums:
        sums.write("x")
    assert builds.key(etcd, gomod) != before


def test_main_package_counts_for_its_binary(gomod: Path) -> None:
    etcd, coredns = builds.TOOLS["etcd"], builds.TOOLS["coredns"]
    before = {tool.name: builds.key(tool, gomod) for tool in (etcd, coredns)}
    with (gomod / "kubernetes" / "coredns" / "main.go").open("a") as main:
        main.write("// another plugin")
    assert builds.key(etcd, gomod) == before["etcd"]
    assert builds.key(coredns, gomod) != before["coredns"]


def test_tools_of_one_module_have_keys_of_their_own() -> None:
    keys = {builds.key(tool) for tool in builds.TOOLS.values()}
    assert len(keys) == len(builds.TOOLS)


def test_every_module_is_pinned() -> None:
    for tool in builds.TOOLS.values():
        assert (builds.GOMOD / tool.module / "go.mod").exists()
        # the one without dependencies needs no checksums
        assert tool.module == "pause" or (builds.GOMOD / tool.module / "go.sum").exists()


def test_the_kubernetes_version_is_the_one_that_is_pinned() -> None:
    assert f"k8s.io/kubernetes v{builds.KUBERNETES}" in (builds.GOMOD / "kubernetes" / "go.mod").read_text()


@pytest.mark.parametrize(
    ("text", "version"),
    [("go version go1.26.8 linux/amd64", (1, 26)), ("go version go1.9 linux/arm64", (1, 9)), ("nonsense", (0, 0))],
)
def test_go_versions_compare_as_numbers(text: str, version: tuple[int, int]) -> None:
    assert builds.parse_go_version(text) == version


def test_an_unknown_tool_is_named_with_the_known_ones() -> None:
    with pytest.raises(BedError, match=r"etdc.*known: .*etcd"):
        builds.build("etdc")


def test_compilers_share_half_of_the_memory() -> None:
    assert builds.compiler_memory(24 * 2**30, cpus=2) == {"GOGC": "off", "GOMEMLIMIT": "2048MiB"}
    assert builds.compiler_memory(8 * 2**30, cpus=8)["GOMEMLIMIT"] == "512MiB"


def test_builds_come_after_everything_else() -> None:
    command = [str(ROOT / "tools/lowest.sh"), sys.executable, "-c", "import os; print(os.nice(0))"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True).stdout == "19\n"


@pytest.mark.skipif(
    not Path("/proc/self/autogroup").exists(),
    reason="/proc/self/autogroup is not there: this kernel doesn't weigh sessions",
)
def test_also_between_sessions() -> None:
    command = [str(ROOT / "tools/lowest.sh"), "cat", "/proc/self/autogroup"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True).stdout
    assert found.endswith("nice 19\n"), found


def test_tools_can_be_built_before_the_environment_is_there() -> None:
    code = f"import sys; sys.path.insert(0, {str(builds.paths.REPO)!r}); import testbed.builds"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)  # -S: without site-packages
