"""The launcher as a program: what it imports, and what it leaves behind when it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from trainmaster_api import names
from trainmaster_api.messages import ExitCode, ExitMessage
from trainmaster_api.reasons import FailureClass


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
