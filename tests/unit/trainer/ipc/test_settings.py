"""What a driver is told travels through a file unchanged."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from trainmaster_trainer.ipc.settings import DriverSettings

PLAIN = DriverSettings(
    job_file="job.json", attempt=2, workers=3, storage_uri="s3://x", base_dir="/data", scratch="/tmp/x",
    result_file="result", token_file="token",
)  # fmt: skip


def test_settings_survive_the_file(tmp_path: Path) -> None:
    values = {"int": 7, "str": 'é \n"', "tuple[dict[str, Any], ...]": [{"mlflow": {"uri": "x"}}]}
    full = DriverSettings(**{each.name: values[str(each.type)] for each in fields(DriverSettings)})
    for settings in (PLAIN, full):
        settings.write(tmp_path / "settings")
        found = asdict(DriverSettings.read(tmp_path / "settings"))
        assert {**found, "tracking": tuple(found["tracking"])} == {
            **asdict(settings),
            "tracking": (*settings.tracking,),
        }


def test_settings_of_another_version_are_refused(tmp_path: Path) -> None:
    """Launcher and driver are of one image: a field that one of them doesn't know is a mistake, not news."""
    PLAIN.write(tmp_path / "settings")
    data = json.loads((tmp_path / "settings").read_text())
    (tmp_path / "settings").write_text(json.dumps({**data, "from_the_future": 1}))
    with pytest.raises(TypeError, match="from_the_future"):
        DriverSettings.read(tmp_path / "settings")
