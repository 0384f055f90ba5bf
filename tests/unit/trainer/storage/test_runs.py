"""Where runs are stored, and how their addresses are spelled."""

from __future__ import annotations

from pathlib import Path

import pytest
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.storage.runs import open_run, run_address
from trainmaster_trainer.storage.store import open_store


@pytest.mark.parametrize("below", ["", "trials/0003", "trials/0003/round-0002"])
def test_a_run_lies_where_its_address_says(job: TrainingJob, tmp_path: Path, below: str) -> None:
    open_run(job, f"file://{tmp_path}/", below).put("LATEST", b"x")
    meta = job.metadata
    (found,) = (path for path in tmp_path.rglob("LATEST"))
    assert found.parent == tmp_path / meta.namespace / meta.name / meta.uid / below
    address = run_address(job, f"file://{tmp_path}/", below)
    assert address == f"file://{found.parent}"
    assert open_store(address, None, "us-east-1", {}).get("LATEST") == b"x"


def test_what_is_no_address_is_said(job: TrainingJob) -> None:
    with pytest.raises(ConfigurationError, match="storage address"):
        open_run(job, "gs://bucket")
