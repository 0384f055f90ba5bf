from __future__ import annotations

import json
from pathlib import Path

import pytest
from trainmaster_api import names
from trainmaster_api.spec.job import TrainingJob


@pytest.fixture
def environment(tmp_path: Path, job: TrainingJob) -> dict[str, str]:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / names.KEY_JOB).write_text(json.dumps(job.wire()))
    (run_dir / names.KEY_RAY).write_text("key\n")
    (run_dir / names.KEY_OWNER).write_text(job.metadata.uid)
    (run_dir / names.KEY_PROGRESS_URL).write_text("https://operator/v1/progress")
    (run_dir / names.KEY_PROGRESS_CA).write_text("")
    (tmp_path / "scratch").mkdir()
    return {
        names.ENV_ROLE: "worker",
        names.ENV_ATTEMPT: "3",
        names.ENV_INDEX: "1",
        names.ENV_JOB_UID: job.metadata.uid,
        names.ENV_POD_IP: "127.0.0.1",
        names.ENV_POD_NAME: "digits-3-w-1",
        "TRAINMASTER_RUN_DIR": str(run_dir),
        "TRAINMASTER_SCRATCH": str(tmp_path / "scratch"),
        "TRAINMASTER_TERMINATION": str(tmp_path / "termination"),
    }
