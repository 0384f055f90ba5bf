"""The bed's wires: one bridge on the host, one network namespace and one cable per node.

The host routes the pods' subnets to their nodes, and the services' subnet to the first node, whose kube-proxy
forwards it. So pods and services can be reached from the host by address, without a single host iptables rule.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from testbed.errors import BedError
from testbed.plan import Node, Plan
from testbed.procs import run


def ip(*args: str, netns: str | None = None) -> str:
    """Run ``ip``, inside a namespace when one is given."""
    return run(["ip", *(["-n", netns] if netns else []), *args])


def in_netns(node: Node, argv: Sequence[str]) -> str:
    """Run a command in the node's network."""
    return run(["nsenter", f"--net={node.netns}", "--", *argv])


def up(plan: Plan) -> None:
    """Make the bridge and every node's network; what exists is left as it is."""
    if not _link_exists(plan.bridge):
        _check_free(plan)
        ip("link", "add", plan.bridge, "type", "bridge")
        ip("addr", "add", f"{plan.host_address}/24", "dev", plan.bridge)
        ip("link", "set", plan.bridge, "up")
        if "-P FORWARD DROP" in run(["iptables", "-S", "FORWARD"]):
            for rule in _forward_rules(plan):
                run(["iptables", "-I", "FORWARD", *rule])
    for node in plan.nodes:
        if node.name not in netns_names():
            _node_up(plan, node)
    ip("route", "replace", plan.service_cidr, "via", plan.nodes[0].address)


def _node_up(plan: Plan, node: Node) -> None:
    ip("netns", "add", node.name)
    ip("link", "add", node.host_link, "type", "veth", "peer", "name", "eth0", "netns", node.name)
    ip("link", "set", node.host_link, "master", plan.bridge, "up")
    ip("link", "set", "lo", "up", netns=node.name)
    ip("addr", "add", f"{node.address}/24", "dev", "eth0", netns=node.name)
    ip("link", "set", "eth0", "up", netns=node.name)
    ip("route", "add", "default", "via", plan.host_address, netns=node.name)
    for other in plan.nodes:
        if other != node:
            ip("route", "add", other.pod_cidr, "via", other.address, netns=node.name)
    in_netns(node, ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
    # pods of one node talk through a bridge; kube-proxy sees them only when bridged packets pass iptables
    bridged = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    in_netns(node, ["sh", "-c", f"modprobe br_netfilter 2>/dev/null; [ ! -e {bridged} ] || echo 1 > {bridged}"])
    ip("route", "replace", node.pod_cidr, "via", node.address)


def down(plan: Plan) -> None:
    """Remove everything that `up` made. The routes go with the bridge, a node's interfaces with its namespace."""
    for node in plan.nodes:
        if _link_exists(node.host_link):
            ip("link", "del", node.host_link)
        if node.name in netns_names():
            if f" {node.netns} " in Path("/proc/mounts").read_text():
                run(["umount", node.netns])
            # after a restart of the machine there may be a file without a namespace
            Path(node.netns).unlink()
    if _link_exists(plan.bridge):
        ip("link", "del", plan.bridge)
    rules = run(["iptables", "-S", "FORWARD"])
    for rule in _forward_rules(plan):
        if " ".join(rule) in rules:
            run(["iptables", "-D", "FORWARD", *rule])


def set_link(node: Node, up: bool) -> None:
    """Plug or unplug the node's cable."""
    ip("link", "set", node.host_link, "up" if up else "down")


def _forward_rules(plan: Plan) -> list[list[str]]:
    # only for hosts that drop forwarded packets (Docker does that); bridged packets count as forwarded
    return [["-i", plan.bridge, "-j", "ACCEPT"], ["-o", plan.bridge, "-j", "ACCEPT"]]


def _link_exists(name: str) -> bool:
    return Path(f"/sys/class/net/{name}").exists()


def netns_names() -> set[str]:
    """The named network namespaces of this machine."""
    folder = Path("/run/netns")
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


def _check_free(plan: Plan) -> None:
    for subnet in (plan.node_cidr, plan.pod_cidr, plan.service_cidr):
        taken = json.loads(run(["ip", "-j", "route", "show", "root", subnet]) or "[]")
        if taken:
            raise BedError(
                f"subnet {subnet} is already routed ({taken[0].get('dev')}): "
                "choose other subnets with TRAINMASTER_BED_SLOT=1..15"
            )
