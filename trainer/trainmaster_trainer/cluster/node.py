"""Ray's own processes, as a pod and a laptop want them: `python -m trainmaster_trainer.cluster.node head|worker JSON`.

What `ray start` does besides costs two seconds of CPU in every pod: its command line imports Ray Serve, pandas and
FastAPI, and a head waits for its dashboard before anything else may start.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from ray._private import ray_constants, services
from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray._private.node import Node
from ray._private.parameter import RayParams
from ray._private.resource_isolation_config import ResourceIsolationConfig

PATIENCE_SECONDS = 120.0
_TICK = 0.2
_ASK = services.get_node
_WATCH_SECONDS = 1.0
_TOLD_TO_END = (0, signal.SIGTERM, -signal.SIGTERM, 128 + signal.SIGTERM)
_DISPENSABLE = (ray_constants.PROCESS_TYPE_DASHBOARD, ray_constants.PROCESS_TYPE_LOG_MONITOR)


class RayNode(Node):
    """A Ray node whose dashboard comes when it is asked for, or never."""

    def start_ray_processes(self) -> None:
        """The raylet and what goes with it, which has more time to register than Ray gives it."""
        super().start_ray_processes()  # type: ignore[no-untyped-call]
        be_patient(lambda: _ended(self))

    def start_raylet(self, *arguments: Any, **options: Any) -> None:
        """With the one port of its agents that Ray doesn't pass on, where it is set.

        A raylet that knows them all waits for none of the files in which its agents write them down: it registers
        without its agents, and doesn't end where they take longer than the 15 s that Ray gives them.
        """
        port, plain = self.dashboard_agent_listen_port, services.start_ray_process

        def start_ray_process(command: list[str], *rest: Any, **named: Any) -> Any:
            return plain([*command, f"--dashboard_agent_listen_port={port}"], *rest, **named)

        services.start_ray_process = start_ray_process if port else plain
        try:
            super().start_raylet(*arguments, **options)
        finally:
            services.start_ray_process = plain

    def start_api_server(self, **options: Any) -> None:
        """Not now: the raylet and the workers needn't wait for a dashboard."""

    def start_dashboard(self) -> None:
        """The dashboard, once all else runs. Without one, training goes on."""
        super().start_api_server(include_dashboard=True, raise_on_failure=False)


def start(head: bool, parameters: Mapping[str, Any], ends_with_us: bool) -> RayNode:
    """Start the processes of a node, and wait until the raylet has registered.

    Args:
        head: With a GCS.
        parameters: Of Ray's `RayParams`.
        ends_with_us: End them when this process is told to end, after the GCS has heard of it.

    Raises:
        NodeEndedError: One of them ended meanwhile.
    """
    ensure_token_if_auth_enabled(None, create_token_if_missing=False)
    isolation = ResourceIsolationConfig(enable_resource_isolation=False)
    params = RayParams(**parameters, resource_isolation_config=isolation, no_monitor=True)  # the operator makes nodes
    return RayNode(params, head=head, shutdown_at_exit=ends_with_us, spawn_reaper=True)


class NodeEndedError(Exception):
    """A process without which there is no node has ended while the node started."""


def be_patient(ended: Callable[[], list[str]]) -> None:
    """Give a raylet that starts two minutes to register instead of 30 s, for which Ray has no setting.

    Ray asks for the node in a loop and looks at its clock after each refusal, which takes 30 s; here the question
    itself waits. Ray would also wait for a raylet that is dead; here the first refusal is the last then.

    Args:
        ended: Processes of the node that have ended, and how.
    """

    def get_node(gcs_address: str, node_id: str) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return _ASK(gcs_address, node_id)  # type: ignore[no-untyped-call]
            except RuntimeError:
                if dead := ended():
                    raise NodeEndedError(f"while Ray's node started, processes ended: {', '.join(dead)}") from None
                if time.monotonic() > deadline:
                    raise
            time.sleep(_TICK)

    services.get_node = get_node


def main(arguments: list[str]) -> None:
    """Start a node in a pod and stay.

    Ends with status 1, and says why, when a process has ended without which there is no training. `ray start --block`
    would end for the dashboard too.
    """
    head = arguments[0] == "head"
    node = start(head, json.loads(arguments[1]), ends_with_us=True)
    print(f"Ray's node {node.node_id} runs", flush=True)
    if head:
        node.start_dashboard()
    while not (ended := _ended(node)):
        time.sleep(_WATCH_SECONDS)
    print("Ray's processes ended:", *ended, sep="\n  ", flush=True)
    node.kill_all_processes(check_alive=False, allow_graceful=False)
    os._exit(1)


def _ended(node: Node) -> list[str]:
    return [
        f"{kind}: status {process.returncode}"
        for kind, process in node.dead_processes()  # type: ignore[no-untyped-call]
        if kind not in _DISPENSABLE and process.returncode not in _TOLD_TO_END
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
