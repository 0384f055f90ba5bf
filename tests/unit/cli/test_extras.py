"""The base installation: which commands work without an extra, and what the others say."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from trainmaster_cli import extras

ROOT = Path(__file__).parents[3]
DIGITS = str(ROOT / "examples/digits/trainingjob.yaml")
SEARCH = str(ROOT / "examples/search/trainingjob.yaml")
BASE = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection", "yaml"}

# What `pip install .` would not have brought is not found, as if it were not there
WITHOUT_EXTRAS = f"""
import sys
from importlib.machinery import PathFinder

class Base(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target)
        top = name.partition(".")[0]
        installed = spec is not None and spec.origin and "site-packages" in spec.origin
        return None if installed and top not in {BASE!r} else spec

sys.meta_path = [Base if finder is PathFinder else finder for finder in sys.meta_path]
from trainmaster_cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS, *arguments], capture_output=True, text=True)


def test_run_says_what_to_install() -> None:
    done = command("run", DIGITS)
    assert done.returncode == 2
    assert done.stderr == (
        "trainmaster: `trainmaster run` needs packages that are not installed (torch, ray, obstore, ...): "
        "pip install 'trainmaster[trainer]', or `pip install '.[trainer]'` in a checkout\n"
    )


@pytest.mark.parametrize("arguments", [("ls",), ("status", "digits"), ("why", "digits"), ("logs", "digits", "-f")])
def test_commands_on_a_cluster_say_what_to_install(arguments: tuple[str, ...]) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert done.stderr == (
        f"trainmaster: `trainmaster {arguments[0]}` needs packages that are not installed (kubernetes, rich, "
        "obstore, ...): "
        "pip install 'trainmaster[cli]', or `pip install '.[cli]'` in a checkout\n"
    )


@pytest.mark.parametrize(
    "arguments", [("validate", DIGITS), ("tune", "plan", SEARCH), ("render", DIGITS), ("version",), ("--help",)]
)
def test_other_commands_need_no_extra(arguments: tuple[str, ...]) -> None:
    done = command(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_dashboard_needs_no_extra() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, "dashboard", "digits"], capture_output=True, text=True,
        env={"PATH": "/nowhere", "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 2
    assert "kubectl was not found on PATH" in done.stderr


def test_every_package_of_the_cli_is_looked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {line.partition(">")[0] for line in project["optional-dependencies"]["cli"]} == set(extras._CLUSTER)
    assert project["scripts"].keys() == {"trainmaster", "kubectl-trainmaster"}, "which makes it a plugin of kubectl"


def test_every_package_of_the_extra_is_looked_for() -> None:
    names = {"torch", "ray", "obstore", "pyarrow", "pandas", "numpy", "scikit-learn", "pillow", "rich", "safetensors"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = {
        line.partition("[")[0].partition("=")[0].partition(">")[0]
        for line in project["optional-dependencies"]["trainer"]
    }
    assert names <= listed
    modules = {"scikit-learn": "sklearn", "pillow": "PIL"}
    assert {modules.get(name, name) for name in names} == set(extras._TRAINER)
