"""What a launcher reads before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from trainmaster_api import names
from trainmaster_trainer.launcher.identity import Pod, Refused


def test_pod_reads_its_part(environment: dict[str, str]) -> None:
    pod = Pod.read(environment)
    assert (pod.role, pod.attempt, pod.index, pod.ip) == ("worker", 3, 1, "127.0.0.1")
    assert pod.token == names.ray_token("key", 3)


def test_pod_foreign_secret_is_refused(environment: dict[str, str]) -> None:
    environment[names.ENV_JOB_UID] = "another"
    with pytest.raises(Refused, match=r"digits-run belongs to another TrainingJob .*0f3c9a1b.*another"):
        Pod.read(environment)


@pytest.mark.parametrize("key", [names.KEY_JOB, names.KEY_RAY, names.KEY_OWNER])
def test_pod_missing_file_is_named(environment: dict[str, str], key: str) -> None:
    (Path(environment["TRAINMASTER_RUN_DIR"]) / key).unlink()
    with pytest.raises(Refused, match=key):
        Pod.read(environment)


def test_pod_broken_job_is_named(environment: dict[str, str]) -> None:
    (Path(environment["TRAINMASTER_RUN_DIR"]) / names.KEY_JOB).write_text("{")
    with pytest.raises(Refused, match="not a TrainingJob"):
        Pod.read(environment)


def test_pod_missing_variable_is_named(environment: dict[str, str]) -> None:
    del environment[names.ENV_POD_IP]
    with pytest.raises(Refused, match="POD_IP"):
        Pod.read(environment)
