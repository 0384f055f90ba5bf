"""PID 1 of the head and of every worker: `python -m trainmaster_trainer.launcher`."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the pod's role to its end; return the exit code.

    Signals are held back first: the kernel drops those that a PID 1 has no handler for, and a pod that is told to end
    while its modules load would then not end.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
    from .run import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
