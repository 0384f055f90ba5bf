"""A process that trains: `python -m trainmaster_trainer.rank FD CRASH_FD`, started by its agent.

Args on the command line:
    FD: Descriptor of a socket whose other end the agent has; no secret is needed on it.
    CRASH_FD: Descriptor of a file for the stacks of a crash.

It first warms up, which needs no job, so a spare can do it in advance. Then it waits for its assignment.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import socket
import sys

from trainmaster_trainer.kernel import die_with_parent, name_process

from .packages import use_packages


def main(arguments: list[str]) -> None:
    """Warm up, become a rank, train, end. Never returns."""
    gc.disable()  # the loop enables it again; collections while modules load take a tenth of the start
    die_with_parent()
    name_process("spare")
    descriptor, crash = int(arguments[0]), int(arguments[1])
    for inherited in (descriptor, crash):
        os.set_inheritable(inherited, False)  # else a child of the user's code would keep the socket open
    faulthandler.enable(crash)
    use_packages()
    connection = socket.socket(fileno=descriptor)

    from .run import Rank, flush

    code = Rank(connection).run()
    flush()
    # Everything was sent. Threads of NCCL, gloo or the user's code may hang in a group that has ended.
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
