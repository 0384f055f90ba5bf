"""The diffs of docs/extending.md apply to this tree, and the tests that they add pass."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("crds", "operator", "trainer", "cli", "tests", "examples")
DIFFS = re.findall(r"^```diff\n(.*?)^```$", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL | re.MULTILINE)


def added_tests(diff: str) -> list[str]:
    """The test files that a diff adds."""
    return re.findall(r"^--- /dev/null\n\+\+\+ b/(tests/\S+)$", diff, re.MULTILINE)


def names_of(diffs: list[str]) -> list[str]:
    return [Path(test).stem.removeprefix("test_") for diff in diffs for test in added_tests(diff)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy that a diff may change."""
    tree = tmp_path / "tree"
    for folder in COPIED:
        shutil.copytree(ROOT / folder, tree / folder)
    shutil.copy(ROOT / "pyproject.toml", tree)
    return tree


def run(tree: Path, *command: str, **variables: str) -> None:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "PYTEST_"))}
    done = subprocess.run(
        command, cwd=tree, env=inherited | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_page_has_a_tested_diff_of_each_extension() -> None:
    assert names_of(DIFFS) == ["lion", "csv_tracker", "top5", "resnet"]
    assert len(DIFFS) == 4


@pytest.mark.parametrize("diff", DIFFS, ids=names_of(DIFFS))
def test_diff_applies_and_its_test_passes(diff: str, tree: Path) -> None:
    (tree / "extension.diff").write_text(diff)
    # inside a repository git would skip, without an error, the paths that are not below the current folder's
    run(tree, "git", "apply", "extension.diff", GIT_CEILING_DIRECTORIES=str(tree.parent))
    path = os.pathsep.join(str(tree / folder) for folder in ("crds", "operator", "trainer", "cli", "."))
    run(tree, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *added_tests(diff), PYTHONPATH=path)
