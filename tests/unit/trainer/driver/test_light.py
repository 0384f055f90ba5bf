"""What runs once per trial or per job beside the ranks holds no framework: torch alone is 300 MB in each process."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "pandas", "mlflow", "matplotlib", "transformers"}


@pytest.mark.parametrize(
    "module",
    ["trainmaster_trainer.driver.trial", "trainmaster_trainer.driver.attempt", "trainmaster_trainer.driver.search"],
)
def test_no_framework_is_imported(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stdout.split())
