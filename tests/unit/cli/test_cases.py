"""Situations from public bug reports around the job's file: names of the user's files, addresses of storage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from trainmaster_api.address import parse
from trainmaster_api.layout import run_uri
from trainmaster_cli.main import main

from tests.unit.api.samples import job
from tests.unit.cli.test_main import write

NAMES = ("queue", "random", "csv", "types", "numpy", "torch", "pyarrow", "trainmaster_trainer", "site", "mine2")


@pytest.mark.parametrize("command", ["validate", "data"])
def test_files_of_the_user_take_no_module_s_place(tmp_path: Path, command: str) -> None:
    """A `queue.py` beside the job (cpython#101210), in the working directory, and a class of the user's own."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "mine.py").write_text(
        "class Set:\n"
        "    def __len__(self): return 100\n"
        "    def __getitem__(self, index): return [float(index)], index % 10\n"
    )
    file = write(tmp_path, job({"spec.training.data": {"class": "mine:Set"}, "spec.training.task.numClasses": 10}))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "trainmaster_cli.main", command, file],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, "imported" in done.stdout + done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize(
    "uri",
    [
        "s3://runs/exp#1", "s3://runs/exp?1", "s3://runs/exp%231", "s3://runs//double//x", "s3://runs/a/../b",
        "s3://runs/./a", "s3://runs/a /b", "s3://runs/\ta", "S3://runs/a", "s3:/runs/a", "s3://Runs/a", "file://host/a",
        "gs://runs/a", "runs", "~/runs", "file:///runs/a#1", "",
    ],
)  # fmt: skip
def test_storage_that_is_read_in_two_ways_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], uri: str
) -> None:
    """Some programs cut or decode there (sagemaker-sdk#2229, obstore#429)."""
    assert main(["validate", write(tmp_path, job({"spec.storage.uri": uri}))]) == 2
    assert "spec.storage.uri" in capsys.readouterr().err


@pytest.mark.parametrize(
    "uri", ["s3://runs/exp-{}", "s3://runs/a b{}", "s3://runs/\xfc{}", "/runs/exp#{}", "/runs/a?{}"]
)
def test_storage_of_two_names_is_two_places(tmp_path: Path, uri: str) -> None:
    assert main(["validate", write(tmp_path, job({"spec.storage.uri": uri.format(1)}))]) == 0
    one, two = (run_uri(str(parse(uri.format(number))), "team", "churn", "u") for number in (1, 2))
    assert parse(one).path != parse(two).path
