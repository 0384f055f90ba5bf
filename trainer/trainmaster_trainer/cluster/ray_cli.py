"""Ray's own command line, faster: `python -m trainmaster_trainer.cluster.ray_cli [--join HOST:PORT] start ...`.

Half of the time of `ray start` is the import of Ray Serve, which is optional for its command line. In this process that
import fails, as it does without the extra; the processes that it starts are not affected.
"""

from __future__ import annotations

import contextlib
import gc
import socket
import sys
import time
from importlib.metadata import entry_points

from .commands import JOIN, is_listening

_NOT_NEEDED = ("ray.serve",)
_TICK = 0.1


def main(arguments: list[str]) -> None:
    """Run Ray's command; with `--join`, load first, and run it as soon as the head listens there.

    Loading needs no head, so a worker does it while the head starts.
    """
    gc.disable()  # collections while modules load take a tenth of the time
    for name in _NOT_NEEDED:
        sys.modules[name] = None  # type: ignore[assignment]  # Python's way to make an import fail
    head = None
    if arguments[:1] == [JOIN]:
        head, *arguments = arguments[1:]
    (script,) = entry_points(group="console_scripts", name="ray")
    ray = script.load()
    if head is not None:
        arguments.append(f"--address={wait_for(head)}")
    sys.argv = ["ray", *arguments]
    sys.exit(ray())


def wait_for(address: str) -> str:
    """Wait until something listens at `HOST:PORT`; return the address with the host's number in place of its name."""
    host, _, port = address.rpartition(":")
    while True:
        with contextlib.suppress(OSError):
            number = str(socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0])
            if is_listening(number, int(port)):
                return f"{number}:{port}"
        time.sleep(_TICK)


if __name__ == "__main__":
    main(sys.argv[1:])
