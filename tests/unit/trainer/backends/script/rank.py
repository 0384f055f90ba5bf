"""One rank of a program in a process of its own, as the agent would start it; says reports and parts as JSON lines.

Arguments: the folder of the run, the folder of this node, the code, the attempt, the job's file. With `--plain`, a
folder, the code and a script, the program runs as Python alone would run it, and nothing of ours runs beside it. With
PACE in the environment a step takes at least so many seconds, and with HOLD an optimizer's step of that number lasts
until the rank is killed.
"""

from __future__ import annotations

import collections
import json
import os
import runpy
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
import trainmaster
from torch.optim.optimizer import register_optimizer_step_post_hook
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.backends import BACKENDS
from trainmaster_trainer.backends.script import files
from trainmaster_trainer.context import Context, Part, Report, Result, Signal
from trainmaster_trainer.failures import rank_error
from trainmaster_trainer.kernel import die_with_parent
from trainmaster_trainer.storage.store import Store

ANSWERS = os.fdopen(os.dup(1), "wb", buffering=0)
os.dup2(2, 1)  # what the program prints isn't an answer
LOCK = threading.Lock()
files.QUIET_SECONDS = 0.3  # the programs here save quickly


def say(kind: str, value: object) -> None:
    with LOCK:
        ANSWERS.write(json.dumps([kind, value]).encode() + b"\n")


class Asked:
    """Stops once a file is there."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def poll(self) -> Signal:
        return Signal.STOP if self.file.exists() else Signal.CONTINUE


def end(result: Result) -> None:
    say("result", result.model_dump(mode="json"))
    os._exit(0)


def failed(error: BaseException) -> None:
    found = rank_error(error, int(os.environ["RANK"]), "")
    lines = found.last_lines
    say("failed", {"class": found.failure_class, "message": found.message, "lines": lines, "peer": found.peer})
    os._exit(1)


def pace(seconds: float, last: int) -> None:
    """Slow down the steps of a program, and let it stand still in one of them, before it can save it."""
    steps: collections.Counter[int] = collections.Counter()

    def look(optimizer: Any, *_: Any) -> None:
        time.sleep(seconds)
        steps[id(optimizer)] += 1
        if steps[id(optimizer)] == last:
            say("held", last)
            threading.Event().wait()

    register_optimizer_step_post_hook(look)
    trainmaster._listeners.append(lambda step, *_: look(None) if step else None)  # where there is no optimizer


def plain(folder: str, code: str, script: str) -> None:
    """Run a program as `python FILE` or `python -m MODULE` would."""
    shape = json.loads(script)
    os.chdir(folder)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    args = shape.get("args", [])
    if "path" in shape:
        file = Path(code, shape["path"])
        sys.argv, sys.path[0] = [str(file), *args], str(file.parent)
        runpy.run_path(str(file), run_name="__main__")
    else:
        sys.argv, sys.path[0] = [shape["module"], *args], code
        runpy.run_module(shape["module"], run_name="__main__", alter_sys=True)


def main() -> None:
    die_with_parent()
    if sys.argv[1] == "--plain":
        try:
            plain(*sys.argv[2:])
        except SystemExit as ended:
            os._exit(int(ended.code or 0))
        os._exit(0)
    if "PACE" in os.environ:
        pace(float(os.environ["PACE"]), int(os.environ.get("HOLD", "0")))
    root, node_dir, code, attempt, file = sys.argv[1:]
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    job = TrainingJob.model_validate_json(Path(file).read_bytes())

    def report(found: Report) -> None:
        say("report", found.model_dump(mode="json"))

    def share(part: Part) -> None:
        say("part", part.model_dump(mode="json"))

    context = Context(
        job, rank, world, torch.device("cpu"), int(attempt), Store(root), root, Path(code), Path(code),
        Asked(Path(root) / "stop"), report, work_dir=Path(node_dir), node=rank, nodes=world, share=share, end=end,
        fail=failed,
    )  # fmt: skip
    try:
        backend = BACKENDS.get(job.spec.training.backend, "backend")
        say("result", backend.fit(context).model_dump(mode="json"))
    except BaseException as error:
        failed(error)
    os._exit(0)


if __name__ == "__main__":
    main()
