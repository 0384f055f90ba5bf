"""What a driver is told travels through a file unchanged."""

from __future__ import annotations

import json
import tempfile
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainmaster_trainer.ipc.settings import DriverSettings

PLAIN = DriverSettings(
    job_file="job.json", attempt=2, storage_uri="s3://x", base_dir="/data", scratch="/tmp/x",
    result_file="result", token_file="token",
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
TRACKING = st.lists(st.dictionaries(st.text(), VALUES), max_size=3).map(tuple)
CPUS = st.floats(allow_nan=False)  # which doesn't equal itself
EVERY_FIELD = {each.name: ... for each in fields(DriverSettings)}  # also those with a default, by their types


@settings(deadline=None)
@given(st.builds(DriverSettings, **{**EVERY_FIELD, "tracking": TRACKING, "worker_cpus": CPUS}))
def test_settings_survive_the_file(written: DriverSettings) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written.write(Path(folder) / "settings")
        assert DriverSettings.read(Path(folder) / "settings") == written


def test_settings_of_another_version_are_refused(tmp_path: Path) -> None:
    """Launcher and driver are of one image: a field that one of them doesn't know is a mistake, not news."""
    PLAIN.write(tmp_path / "settings")
    data = json.loads((tmp_path / "settings").read_text())
    (tmp_path / "settings").write_text(json.dumps({**data, "from_the_future": 1}))
    with pytest.raises(TypeError, match="from_the_future"):
        DriverSettings.read(tmp_path / "settings")
