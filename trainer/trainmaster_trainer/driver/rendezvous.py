"""The port at which the ranks of a generation meet: on the host of rank 0."""

from __future__ import annotations

import socket

from trainmaster_api import names


def port_in_pod(generation: int) -> int:
    """Return the port in a pod: a new one for each generation, because the last may still be in use."""
    count = names.PORT_RENDEZVOUS_MAX - names.PORT_RENDEZVOUS_MIN + 1
    return names.PORT_RENDEZVOUS_MIN + (generation - 1) % count


def free_port(address: str) -> int:
    """Return a port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
    return port
