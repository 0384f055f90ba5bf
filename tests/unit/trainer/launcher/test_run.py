"""The launcher as a program: what it imports, and what it leaves behind when it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from trainmaster_api import names
from trainmaster_api.layout import log_path, run_path
from trainmaster_api.messages import ExitCode, ExitMessage
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob


def test_launcher_refusal_is_the_termination_message(environment: dict[str, str]) -> None:
    environment[names.ENV_JOB_UID] = "another"
    done = subprocess.run(
        [sys.executable, "-m", "trainmaster_trainer.launcher"],
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == ExitCode.FAILED
    message = ExitMessage.decode(Path(environment["TRAINMASTER_TERMINATION"]).read_text())
    assert message is not None
    assert message.failure_class is FailureClass.INVALID_CONFIGURATION
    assert "Traceback" not in done.stdout + done.stderr


def test_launcher_imports_nothing_heavy() -> None:
    code = "import sys, trainmaster_trainer.launcher.run; print(*sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=True)
    assert not {"torch", "ray", "numpy", "obstore", "mlflow", "rich"} & set(out.stdout.split())


# A raylet that is only named so, with a rank below it, as Ray would have it.
RAYLET = """
import os, sys, time
from trainmaster_trainer.cluster.process import Process
from trainmaster_trainer.kernel import name_process
name_process("raylet")
code = "import os, time; print('step 1'); {and_then}"
rank = Process((sys.executable, "-c", code), os.environ, is_spare=False)
rank.hand_over_output("rank 1")
time.sleep(120)
"""
LAUNCHER = """
import sys
from trainmaster_trainer.launcher import worker
from trainmaster_trainer.launcher.__main__ import main
worker.commands.worker_command = lambda *_: ["/bin/sh", "-c", sys.argv[1]]
worker.commands.is_listening = lambda *_, **__: True
worker.socket.getaddrinfo = lambda *_: [(0, 0, 0, "", ("127.0.0.1", 0))]
sys.exit(main())
"""


@pytest.mark.parametrize("how", ["told to end", "raylet dies"])
def test_a_worker_s_log_is_kept_whatever_ends_it(
    environment: dict[str, str], job: TrainingJob, tmp_path: Path, how: str
) -> None:
    """Ending Ray ends every process of the pod but the one that keeps the log."""
    wire = job.wire()
    wire["spec"]["storage"] = {"uri": str(tmp_path / "store")}
    (Path(environment["TRAINMASTER_RUN_DIR"]) / names.KEY_JOB).write_text(json.dumps(wire))
    (tmp_path / "raylet.py").write_text(RAYLET.format(and_then="time.sleep(120)"))
    start = f"{sys.executable} {tmp_path}/raylet.py >/dev/null 2>&1 & echo $! >> {tmp_path}/pids; sleep 1"
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, start],
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, text=True,
    ) as launcher:  # fmt: skip
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "[rank 1] step 1\n"
        times = 1
        if how == "raylet dies":
            os.kill(int((tmp_path / "pids").read_text().split()[0]), signal.SIGKILL)
            times = 2
            assert "rejoining" in launcher.stdout.readline()
            assert any("[rank 1] step 1" in line for line in iter(launcher.stdout.readline, ""))
        launcher.send_signal(signal.SIGTERM)
        rest = launcher.stdout.read()
        assert launcher.wait(30) == ExitCode.STOPPED, rest
    message = ExitMessage.decode(Path(environment["TRAINMASTER_TERMINATION"]).read_text())
    assert message is not None
    assert message.message == "stopped without a checkpoint"
    meta = job.metadata
    stored = tmp_path / "store" / run_path(meta.namespace, meta.name, meta.uid) / log_path(3, "digits-3-w-1")
    assert stored.read_text().count("[rank 1] step 1\n") == times
