"""What a process runs on."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from types import SimpleNamespace

import pytest
from trainmaster_api import names
from trainmaster_trainer.surroundings import device_name, of_this_process, packages


def test_packages_are_those_that_are_imported(tmp_path: Path) -> None:
    found = packages({})
    assert found["pydantic"] == importlib.metadata.version("pydantic")
    info = tmp_path / "pydantic-0.0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pydantic\nVersion: 0.0.1\n")
    assert packages({names.ENV_PACKAGES: str(tmp_path)})["pydantic"] == "0.0.1", "the folder comes first"


def test_python_and_platform() -> None:
    found = of_this_process({})
    assert (found.python, found.platform) == (platform.python_version(), platform.platform())


def test_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(get_device_name=lambda device: f"GPU {device.index}")
    monkeypatch.setitem(__import__("sys").modules, "torch", SimpleNamespace(cuda=cuda))
    assert device_name(SimpleNamespace(type="cuda", index=1)) == "GPU 1"
    assert device_name(SimpleNamespace(type="cpu")) not in ("", "GPU 1")
    assert device_name(None)
