"""What a launcher does in its pod, as head or as worker. See docs/contract.md for what it promises.

Nothing heavy is imported, so that Ray starts at once.
"""

from __future__ import annotations

import os
from dataclasses import replace

from trainmaster_api import names
from trainmaster_api.messages import ExitMessage
from trainmaster_api.reasons import FailureClass

from trainmaster_trainer.cluster import commands
from trainmaster_trainer.processes import Children, adopt_orphans

from .code import bring_code
from .ending import end, failed
from .head import Head
from .identity import Pod, Refused, termination_path
from .worker import Worker


def run() -> int:
    """Run the pod's role to its end; return the exit code. The termination message has the details."""
    try:
        pod = Pod.read(os.environ)
    except Refused as refusal:
        message = failed(FailureClass.INVALID_CONFIGURATION, str(refusal))
        return end(message, termination_path(os.environ))
    commands.write_token(pod.token_file, pod.token)
    adopt_orphans()  # `ray start` leaves its processes behind; PID 1 gets them anyway
    children = Children()
    brought = bring_code(pod, children)
    if isinstance(brought, ExitMessage):
        return end(brought, pod.termination)
    pod = replace(pod, code_dir=brought.code_dir, packages_dir=brought.packages_dir)
    if pod.role == names.ROLE_HEAD:
        return end(Head(pod, children).run(), pod.termination)
    worker = Worker(pod, children)
    try:
        return end(worker.run(), pod.termination)
    finally:
        worker.close()
