import ipaddress
from itertools import combinations

import pytest

from testbed.errors import BedError
from testbed.plan import SLOTS, Plan


def subnets(plan: Plan) -> list[ipaddress.IPv4Network]:
    return [ipaddress.IPv4Network(cidr) for cidr in (plan.node_cidr, plan.pod_cidr, plan.service_cidr)]


def test_the_default_bed_has_the_documented_addresses() -> None:
    plan = Plan.of("tm", 2)
    assert (plan.bridge, plan.host_address, plan.dns_service) == ("tm0", "10.20.0.1", "10.96.0.10")
    assert [(n.name, n.address, n.pod_cidr) for n in plan.nodes] == [
        ("tm-n1", "10.20.0.11", "10.244.1.0/24"),
        ("tm-n2", "10.20.0.12", "10.244.2.0/24"),
    ]


def test_no_two_beds_share_a_subnet() -> None:
    everything = [subnet for slot in range(SLOTS) for subnet in subnets(Plan.of("a", 1, slot))]
    assert not [pair for pair in combinations(everything, 2) if pair[0].overlaps(pair[1])]


def test_everything_of_a_node_lies_in_its_subnet() -> None:
    plan = Plan.of("tx", 3)
    nodes, pods, services = subnets(plan)
    for node in plan.nodes:
        assert ipaddress.IPv4Address(node.address) in nodes
        assert ipaddress.IPv4Network(node.pod_cidr).subnet_of(pods)
        assert ipaddress.IPv4Address(node.pod_gateway) in ipaddress.IPv4Network(node.pod_cidr)
    assert ipaddress.IPv4Address(plan.dns_service) in services
    assert ipaddress.IPv4Address(plan.kubernetes_service) in services


def test_other_names_keep_away_from_the_default_bed() -> None:
    slots = {Plan.of(name, 1).slot for name in ("tx", "ci", "bed2", "mine", "a")}
    assert 0 not in slots
    assert Plan.of("tx", 1).slot == Plan.of("tx", 3).slot


def test_the_longest_name_still_fits_an_interface() -> None:
    plan = Plan.of("abcdefgh", 3)
    assert max(len(name) for name in (plan.bridge, *(node.host_link for node in plan.nodes))) <= 15


@pytest.mark.parametrize(
    ("name", "nodes", "slot"),
    [
        ("Tm", 1, None),
        ("ninechars", 1, None),
        ("", 1, None),
        ("1a", 1, None),
        ("a-b", 1, None),
        ("tm", 0, None),
        ("tm", 4, None),
        ("tm", 1, 16),
    ],
)
def test_what_cannot_work_is_refused(name: str, nodes: int, slot: int | None) -> None:
    with pytest.raises(BedError, match=r"use "):
        Plan.of(name, nodes, slot)
