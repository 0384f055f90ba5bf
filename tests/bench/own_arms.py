"""The arms of the benchmark of own programs: `python -m tests.bench.own_arms ARM PROGRAM STEPS`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TORCHRUN = {
    "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0", "TORCHELASTIC_RUN_ID": "bench", "TORCHELASTIC_RESTART_COUNT": "0",
}  # fmt: skip
PROGRAMS = Path(__file__).parent / "programs"
KINDS = {"script": "mnist_like.py", "lightning": "mnist_lightning.py", "transformers": "mnist_transformers.py"}
"""Programs that do the same in different ways."""


def ours(program: str, steps: int, folder: Path) -> None:
    """The program as the rank of a job runs it: steps counted and reported, its files watched and kept."""
    import torch
    from trainmaster_api.spec.job import TrainingJob
    from trainmaster_trainer.backends.script.fit import fit
    from trainmaster_trainer.context import Context, Signal
    from trainmaster_trainer.storage.store import Store

    from tests.factories import REMOVE, make_job

    class GoOn:
        def poll(self) -> Signal:
            return Signal.CONTINUE

    script = {"path": program, "args": [str(steps), str(folder / "times.json")], "checkpoints": ["out"]}
    no_parts = {f"spec.training.{part}": REMOVE for part in ("task", "data", "model")}
    job = TrainingJob.model_validate(make_job(no_parts, {"spec.training.script": script}))
    (folder / "work").mkdir()
    os.environ |= TORCHRUN  # as a rank of a job has them: with them, a Trainer wraps its model in DDP
    store = Store(str(folder / "run"))
    context = Context(
        job, 0, 1, torch.device("cpu"), 1, store, str(folder / "run"), PROGRAMS, PROGRAMS, GoOn(), lambda report: None,
        work_dir=folder / "work",
    )  # fmt: skip
    fit(context)


def torchrun(program: str, steps: int, folder: Path) -> None:
    """The same program, started by torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    arguments = [str(PROGRAMS / program), str(steps), str(folder / "times.json")]
    subprocess.run([*command, *arguments], cwd=folder, check=True, capture_output=True)


ARMS = {"ours": ours, "torchrun": torchrun}


def main(arm: str, program: str, steps: int) -> None:
    """Run an arm and print its figures as JSON."""
    with tempfile.TemporaryDirectory(prefix="trainmaster-bench-") as name:
        folder = Path(name)
        ARMS[arm](program, steps, folder)
        print((folder / "times.json").read_text())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
