"""``python -m testbed VERB``: the bed from the command line. See docs/testbed.md."""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from testbed import builds, golden, images, kind, system
from testbed.bed import Bed
from testbed.builds import say
from testbed.errors import BedError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testbed", description="A real Kubernetes on one Linux box, without Docker.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up", help="bring the cluster up; does nothing that is already done")
    up.add_argument("--nodes", type=int, default=None, help="1 to 3, by default 2")
    up.add_argument("--provider", choices=("bed", "kind"), default="bed")
    up.add_argument("--bare", action="store_true", help="nodes only: no name service, no S3, no MLflow")
    down = verbs.add_parser("down", help="take it away, leaving nothing behind but the cache")
    down.add_argument("--provider", choices=("bed", "kind"), default="bed")
    verbs.add_parser("status", help="nodes and processes")
    verbs.add_parser("addons", help="deploy CoreDNS, MinIO and MLflow (part of `up`)")
    verbs.add_parser("kubeconfig", help="print the path of the kubeconfig")
    build = verbs.add_parser("build", help="build the tools that are missing in the cache")
    build.add_argument("tool", nargs="*", help=f"by default what `up` needs; all: {', '.join(builds.TOOLS)}")
    picture = verbs.add_parser("images", help="build or load container images").add_subparsers(
        dest="what", required=True, metavar="build|unpack|load"
    )
    picture.add_parser("build", help="build images/*/Dockerfile").add_argument("name", nargs="*")
    picture.add_parser("unpack", help="unpack what is built, once for all nodes (part of `up`)")
    picture.add_parser("load", help="bring images to the running nodes").add_argument("reference", nargs="+")
    node = verbs.add_parser("node", help="faults, for tests")
    node.add_argument("fault", choices=("partition", "heal", "kill"))
    node.add_argument("name", help="name or number of the node")
    tool = verbs.add_parser("exec-tool", help="run kubectl or helm against the bed")
    tool.add_argument("tool", choices=("kubectl", "helm"))
    tool.add_argument("args", nargs=argparse.REMAINDER)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; problems are sentences on stderr, not tracebacks."""
    args = _parser().parse_args(argv)
    try:
        return _run(args)
    except BedError as error:
        say(f"error: {error}")
        return 1


def _run(args: argparse.Namespace) -> int:
    match args.verb:
        case "up" if args.provider == "kind":
            kind.up(args.nodes or 2)
        case "down" if args.provider == "kind":
            kind.down()
        case "up":
            _up(Bed(nodes=args.nodes), bare=args.bare)
        case "down":
            began = time.monotonic()
            Bed().down()
            say(f"down after {time.monotonic() - began:.0f} s")
        case "status":
            return _status(Bed())
        case "addons":
            _existing().addons()
        case "kubeconfig":
            print(_existing().kubeconfig)
        case "build":
            builds.build(*(args.tool or builds.BED))
        case "images":
            _images(args)
        case "node":
            getattr(_existing(), args.fault)(args.name)
        case "exec-tool":
            _exec(args.tool, args.args)
    return 0


def _up(bed: Bed, bare: bool) -> None:
    began = time.monotonic()
    bed.up(with_addons=not bare)
    say(f"up after {time.monotonic() - began:.0f} s")
    print(f"export KUBECONFIG={bed.kubeconfig}")
    print(f"export PATH={builds.tool('kubectl').parent}:{builds.tool('helm').parent}:$PATH")


def _existing() -> Bed:
    bed = Bed()
    if not bed.exists:
        raise BedError(f"bed {bed.plan.name} is not up: run `python -m testbed up` first")
    return bed


def _status(bed: Bed) -> int:
    if not bed.exists:
        print(f"bed {bed.plan.name}: down")
        return 1
    dead = [proc for proc in bed.processes() if not proc.alive]
    print(f"bed {bed.plan.name}: up, {bed.plan.node_count} nodes, state in {bed.run}")
    for proc in bed.processes():
        print(f"  {'runs' if proc.alive else 'DEAD'}  {proc.name:<24} pid {proc.pid:<8} {proc.log}")
    for proc in dead:
        print(f"\n{proc.name} died. Its last lines:\n{proc.last_lines()}")
    if not dead:
        print(_kubectl_nodes(bed))
    return 1 if dead else 0


def _kubectl_nodes(bed: Bed) -> str:
    from testbed.addons import kubectl_for

    return kubectl_for(bed.kubeconfig)("get", "nodes", "-o", "wide")


def _images(args: argparse.Namespace) -> None:
    if args.what == "load":
        _existing().load(args.reference)
        return
    if args.what == "unpack":
        system.require_root()
        system.ensure_packages()
        golden.unpack()
        return
    names = args.name or images.OURS
    if not system.is_linux_root() and shutil.which("docker"):
        kind.build(names)
        return
    system.require_root()
    system.ensure_packages()
    for name in images.build_ours(names):
        print(name)


def _exec(name: str, args: Sequence[str]) -> None:
    bed = _existing()
    binary = builds.tool(name)
    sys.stdout.flush()
    os.execve(binary, [name, *args], {**os.environ, "KUBECONFIG": str(Path(bed.kubeconfig))})
