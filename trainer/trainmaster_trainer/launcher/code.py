"""The user's code in a pod, before Ray starts: in a process of its own where that may take long.

A launcher is a PID 1: it reaps every process and answers signals, so it neither waits for a repository nor runs a
program through a library that wants to reap it itself.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainmaster_api import names
from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_api.reasons import FailureClass

from trainmaster_trainer.code.bring import bring
from trainmaster_trainer.errors import CodeError, TrainingError
from trainmaster_trainer.processes import Children

from .ending import failed, tail
from .identity import Pod

if TYPE_CHECKING:
    from trainmaster_trainer.data.entries import Entry

_MODULE = "trainmaster_trainer.launcher.code"
_TICK = 0.25
_RESULT, _FAILURE, _LOG = "code-result.json", "code-failure.json", "code.log"


@dataclass(frozen=True)
class Brought:
    """What a pod has of the user's.

    Attributes:
        code_dir: Folder of the code; empty: the job names none.
        packages_dir: Folder of the packages of its lock file; empty: there are none, or this is the head.
        held: Keeps those packages as long as it is there.
    """

    code_dir: str = ""
    packages_dir: str = ""
    held: Entry | None = field(default=None, compare=False)


def bring_code(pod: Pod, children: Children) -> Brought | ExitMessage:
    """Bring the code that the job names into the pod; return how the attempt ends where that fails."""
    code = pod.job.spec.training.code
    if code is None:
        return Brought()
    if code.requirements is None and (code.inline is not None or code.image is not None):
        try:
            return fetch(pod)
        except TrainingError as error:
            return failed(error.failure_class, error.message, pod.name)
    return _in_a_process(pod, children)


def fetch(pod: Pod) -> Brought:
    """Bring the code here, in this process. Raises TrainingError."""
    code = pod.job.spec.training.code
    if code is None:
        return Brought()
    inline = None
    if code.inline is not None and not code.inline.data:
        try:
            inline = (pod.run_dir / names.KEY_CODE).read_bytes()
        except OSError as error:
            secret = names.run_secret(pod.job.metadata.name)
            raise CodeError(
                f"the Secret {secret} has no {names.KEY_CODE} ({(error.strerror or '').lower()}), which the operator "
                "puts there from spec.training.code.inline; submit the job again"
            ) from None
    folder = bring(code, pod.job.spec.storage, pod.environment, pod.scratch, inline)
    if code.requirements is None or pod.role == names.ROLE_HEAD:
        return Brought(str(folder))
    from trainmaster_trainer.code.install import install
    from trainmaster_trainer.code.installed import packages_of

    entry = install(code, folder, pod.job.spec.storage, pod.environment)
    return Brought(str(folder)) if entry is None else Brought(str(folder), str(packages_of(entry)), entry)


def _in_a_process(pod: Pod, children: Children) -> Brought | ExitMessage:
    result, failure, log = (pod.scratch / name for name in (_RESULT, _FAILURE, _LOG))
    for left in (result, failure):
        left.unlink(missing_ok=True)
    with log.open("wb") as output:
        child = children.start([sys.executable, "-m", _MODULE], pod.child_environment(), output)
    while (status := children.exit_of(child)) is None:
        if children.wait(_TICK):
            children.end(child, 0)
            return ExitMessage(outcome=Outcome.STOPPED, message="stopped before the code was there", pod=pod.name)
    print(log.read_text(errors="replace"), end="", flush=True)
    if result.exists():
        found = _held(Brought(**json.loads(result.read_text())))
        return found or _in_a_process(pod, children)
    message = ExitMessage.decode(failure.read_text()) if failure.exists() else None
    if message is not None:
        return message
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    text = f"the process that brings the code {how} and without a result"
    return failed(FailureClass.CODE_UNAVAILABLE, text, pod.name, tail(log))


def _held(brought: Brought) -> Brought | None:
    """Return it with its packages held here; None: they were removed since the process that installed them ended."""
    if not brought.packages_dir:
        return brought
    from trainmaster_trainer.code.installed import hold

    entry = hold(Path(brought.packages_dir))
    return replace(brought, held=entry) if entry is not None else None


def main() -> int:
    """Bring the code of this pod and write the result, or the failure, into its scratch folder."""
    pod = Pod.read(os.environ)
    try:
        brought = fetch(pod)
        result = {"code_dir": brought.code_dir, "packages_dir": brought.packages_dir}
        _write(pod.scratch / _RESULT, json.dumps(result))
    except TrainingError as error:
        _write(pod.scratch / _FAILURE, failed(error.failure_class, error.message, pod.name).encode())
        return 1
    return 0


def _write(path: Path, text: str) -> None:
    path.with_suffix(".tmp").write_text(text)
    path.with_suffix(".tmp").rename(path)


if __name__ == "__main__":
    sys.exit(main())
