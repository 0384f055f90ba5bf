"""The addressing plan: every name and subnet of a bed follows from its name and node count. Pure."""

import zlib
from dataclasses import dataclass
from functools import cached_property

from testbed.errors import BedError

MAX_NODES = 3
SLOTS = 16


@dataclass(frozen=True)
class Node:
    """One simulated machine: a network namespace with a container runtime and a kubelet."""

    index: int
    name: str
    address: str
    pod_cidr: str
    pod_gateway: str
    host_link: str
    """The host's end of the cable; taking it down is a network partition."""
    cgroup: str

    @property
    def netns(self) -> str:
        """Path of the network namespace."""
        return f"/run/netns/{self.name}"


@dataclass(frozen=True)
class Plan:
    """Names and subnets of a bed; `slot` 0 belongs to the bed ``tm``, other names hash to 1..15."""

    name: str
    node_count: int
    slot: int

    @classmethod
    def of(cls, name: str, node_count: int, slot: int | None = None) -> "Plan":
        """Check the inputs and choose the slot.

        Raises:
            BedError: a name that can't become an interface name, or too many nodes.
        """
        if not (name and name.isascii() and name.isalnum() and name[0].isalpha() and len(name) <= 8 and name.islower()):
            raise BedError(f"bed name {name!r}: use 1 to 8 lower-case letters or digits, a letter first")
        if not 1 <= node_count <= MAX_NODES:
            raise BedError(f"{node_count} nodes: use 1 to {MAX_NODES}")
        if slot is None:
            slot = 0 if name == "tm" else 1 + zlib.crc32(name.encode()) % (SLOTS - 1)
        if not 0 <= slot < SLOTS:
            raise BedError(f"slot {slot}: use 0 to {SLOTS - 1}")
        return cls(name, node_count, slot)

    @property
    def bridge(self) -> str:
        return f"{self.name}0"

    @property
    def host_address(self) -> str:
        """The host on the bridge; the API server listens here."""
        return f"10.20.{self.slot}.1"

    @property
    def node_cidr(self) -> str:
        return f"10.20.{self.slot}.0/24"

    @property
    def pod_cidr(self) -> str:
        return f"10.{244 - self.slot}.0.0/16"

    @property
    def service_cidr(self) -> str:
        return f"10.{96 + self.slot}.0.0/16"

    @property
    def kubernetes_service(self) -> str:
        return f"10.{96 + self.slot}.0.1"

    @property
    def dns_service(self) -> str:
        return f"10.{96 + self.slot}.0.10"

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes, counted from 1."""
        return tuple(self._node(i) for i in range(1, self.node_count + 1))

    def _node(self, index: int) -> Node:
        pods = f"10.{244 - self.slot}.{index}"
        return Node(
            index=index,
            name=f"{self.name}-n{index}",
            address=f"10.20.{self.slot}.{10 + index}",
            pod_cidr=f"{pods}.0/24",
            pod_gateway=f"{pods}.1",
            host_link=f"{self.name}v{index}",
            cgroup=f"{self.name}-n{index}",
        )
