"""Helm, run on the chart as a user would run it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed import builds
from testbed.errors import BedError

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "trainmaster"
Json = dict[str, Any]


class HelmError(Exception):
    """Helm ended with an error; the text is what it said."""


class Rendered(list[Json]):
    """Every object of a release."""

    def of(self, kind: str, suffix: str = "") -> list[Json]:
        """Objects of a kind, by the end of their name."""
        return [each for each in self if each["kind"] == kind and each["metadata"]["name"].endswith(suffix)]

    def one(self, kind: str, name: str = "") -> Json:
        """The only object of a kind, or the one of that name."""
        found = [each for each in self.of(kind) if name in ("", each["metadata"]["name"])]
        assert len(found) == 1, [each["metadata"]["name"] for each in self.of(kind)]
        return found[0]

    @property
    def env(self) -> Json:
        """Plain environment of the operator's container."""
        container = self.one("Deployment")["spec"]["template"]["spec"]["containers"][0]
        return {each["name"]: each["value"] for each in container["env"] if "value" in each}


@pytest.fixture(scope="session")
def helm() -> Callable[..., str]:
    """Run helm; raises HelmError with its message."""
    own = shutil.which("helm")
    try:
        binary = own or str(builds.tool("helm"))
    except BedError as error:
        pytest.skip(f"there is no helm, and it can't be built: {error}")

    def run(*args: str) -> str:
        done = subprocess.run([binary, *args], capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise HelmError(done.stderr)
        return done.stdout

    return run


@pytest.fixture(scope="session")
def render(helm: Callable[..., str]) -> Callable[..., Rendered]:
    """Objects that `helm install` would create: dotted names of values as keyword arguments, `__` for the dot."""

    def run(release: str = "trainmaster", files: tuple[Path, ...] = (), **values: Any) -> Rendered:
        args = ["template", release, str(CHART), "-n", "trainmaster-system", "--kube-version", "1.34.0"]
        args += [part for file in files for part in ("-f", str(file))]
        args += [part for k, v in values.items() for part in ("--set-json", f"{k.replace('__', '.')}={json.dumps(v)}")]
        return Rendered(each for each in yaml.safe_load_all(helm(*args)) if each)

    return run


@pytest.fixture(scope="session")
def default(render: Callable[..., Rendered]) -> Rendered:
    """The chart with its own values."""
    return render()
