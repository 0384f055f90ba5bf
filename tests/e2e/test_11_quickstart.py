"""The commands of docs/quickstart.md, as they stand there: one folder, here and on the cluster, the same weights."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from tests.e2e.conftest import ROOT
from tests.e2e.kube import Namespace, status

ON_CLUSTER = ("submit", "fetch")


def commands() -> list[list[str]]:
    """What the page says to type."""
    (block,) = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs/quickstart.md").read_text(), re.DOTALL | re.MULTILINE)
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def test_quickstart(shared_namespace: Namespace, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(ROOT / "examples/recipe", folder)
    environment = {**os.environ, "KUBECONFIG": shared_namespace.cluster.kubeconfig}
    said = {}
    for program, command, *arguments in commands():
        assert program == "trainmaster"
        where = ["-n", shared_namespace.name] if command in ON_CLUSTER else []
        line = [sys.executable, "-m", "trainmaster_cli.main", command, *arguments, *where]
        done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        said[command] = done.stdout
    assert list(said) == ["run", *ON_CLUSTER]
    (here,) = (folder / "trainmaster-runs").glob("*/recipe/*/model/model.safetensors")
    there = folder / "recipe" / "model" / "model.safetensors"
    digest = sha256(here.read_bytes()).hexdigest()
    assert sha256(there.read_bytes()).hexdigest() == digest
    assert f"{digest}  recipe/model/model.safetensors" in said["fetch"]
    job = shared_namespace.job("recipe")
    assert status(job)["phase"] == "Complete"
    assert status(job)["resume"] == "Exact"
    assert f"test/accuracy {status(job)['testMetrics']['test/accuracy']:.4f}" in said["run"]
