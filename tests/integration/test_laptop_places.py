"""`trainmaster run` with a real Ray where a machine makes it hard, and a run that is made longer."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.factories import make_job

pytestmark = pytest.mark.ray

ROWS = "a,b,label\n" + "".join(f"{i % 7},{i % 5},{int(i % 7 > 3)}\n" for i in range(200))


def write(folder: Path, name: str = "job.yaml", source: str = "rows.csv", **loop: Any) -> Path:
    job = make_job(
        {
            "spec.training.task.numClasses": 2,
            "spec.training.data": {"source": source, "target": "label", "batchSize": 32},
            "spec.training.model.args": {"hidden": [8]},
            "spec.training.schedule": {"name": "constant", "warmup": "0"},
            "spec.training.loop": {"duration": "2ep", "seed": 1, **loop},
            "spec.cluster.workers.count": 1,
        }
    )
    (folder / source).write_text(ROWS)
    file = folder / name
    file.write_text(yaml.safe_dump(job))
    return file


def run(folder: Path, *options: str, command: tuple[str, ...] = (), **environment: str | None) -> tuple[int, str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    env |= {key: value for key, value in environment.items() if value is not None}
    for key in [key for key, value in environment.items() if value is None]:
        env.pop(key, None)
    done = subprocess.run(
        [*command, sys.executable, "-P", "-m", "trainmaster_cli.main", "run", *options],
        cwd=folder, env=env, capture_output=True, text=True, timeout=300, encoding="utf-8",
    )  # fmt: skip
    text = done.stdout + done.stderr
    assert "Traceback" not in text, text
    return done.returncode, text


def weights(storage: Path) -> bytes:
    (found,) = storage.glob("default/small/*/model/model.safetensors")
    return found.read_bytes()


def test_a_run_that_is_made_longer_is_the_longer_run(tmp_path: Path) -> None:
    for duration in ("2ep", "4ep"):  # complete, and then not any more
        write(tmp_path, duration=duration)
        code, out = run(tmp_path, "job.yaml")
        assert code == 0, out
    assert "resumed from step 10" in out
    code, out = run(tmp_path, "job.yaml")
    assert code == 0, out
    assert "resumed" not in out, "it is complete"
    assert "20 steps" in out
    code, out = run(tmp_path, "job.yaml", "--storage", "straight")
    assert code == 0, out
    assert weights(tmp_path / "trainmaster-runs") == weights(tmp_path / "straight")

    write(tmp_path, duration="3ep")
    code, out = run(tmp_path, "job.yaml")
    assert code == 2
    assert "training.loop.duration was changed from 4ep to 3ep; a run can't be shortened" in out


def test_a_run_whose_data_has_changed(tmp_path: Path) -> None:
    """Refused when it is complete and when it is made longer; a fresh run is one on the new data."""
    write(tmp_path)
    code, out = run(tmp_path, "job.yaml")
    assert code == 0, out
    trained = weights(tmp_path / "trainmaster-runs")
    (tmp_path / "rows.csv").touch()
    code, out = run(tmp_path, "job.yaml")
    assert code == 0, out

    changed = ROWS.replace("\n3,3,0\n", "\n3,3,1\n", 1)
    for duration in ("2ep", "4ep"):
        write(tmp_path, duration=duration)
        (tmp_path / "rows.csv").write_text(changed)
        code, out = run(tmp_path, "job.yaml")
        assert code == 2, out
        assert "DataChanged: the data of job.yaml has changed since its run began:\n" in out
        assert "  rows.csv: other content, 1,210 bytes; 201 lines; line 5 differs\n" in out
        assert "nothing was trained; the run is " in out
        assert " run job.yaml --fresh; or restore the data" in out
        assert weights(tmp_path / "trainmaster-runs") == trained

    code, out = run(tmp_path, "job.yaml", "--fresh")
    assert code == 0, out
    runs = sorted(tmp_path.glob("trainmaster-runs/default/small/*/data/fingerprint.json"))
    assert len(runs) == 2
    checksums = {json.loads(path.read_text())["files"][0]["sha256"] for path in runs}
    assert checksums == {hashlib.sha256(text.encode()).hexdigest() for text in (ROWS, changed)}


def test_nothing_of_the_machine_is_in_the_way(tmp_path: Path) -> None:
    """Read-only working directory, odd names, no HOME, a long TMPDIR, an ASCII locale, a user's own queue.py."""
    folder = tmp_path / "my #1 project ü"
    folder.mkdir()
    write(folder, "my job.yaml", "my rows?.csv")
    (folder / "queue.py").write_text("raise AssertionError('the user\\'s queue, not Python\\'s')")
    before = sorted(path.name for path in folder.iterdir())
    long = Path("/tmp") / ("t" * 60)
    long.mkdir(exist_ok=True)
    read_only: tuple[str, ...] = ()
    if os.geteuid() == 0 and shutil.which("unshare"):  # root may write whatever the mode says
        script = 'mount --bind . . && cd "$PWD" && mount -o remount,ro,bind . && cd "$PWD" && exec "$@"'
        read_only = ("unshare", "--mount", "sh", "-c", script, "sh")
    else:
        folder.chmod(0o500)
    try:
        code, out = run(
            folder, "my job.yaml", "--storage", str(tmp_path / "out"), command=read_only,
            HOME=None, XDG_STATE_HOME=None, TMPDIR=str(long), LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0",
        )  # fmt: skip
    finally:
        folder.chmod(0o700)
        # torch makes the folder of its compiler's cache, which lives longer than a run, wherever torch is used
        left = [path for path in long.iterdir() if not path.name.startswith("torchinductor_")]
        shutil.rmtree(long)
    assert code == 0, out
    assert "kubectl apply -f 'my job.yaml'" in out
    assert weights(tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == before
    assert left == []
    assert json.loads(next((tmp_path / "out").glob("default/small/last.json")).read_text())["duration"] == "2ep"
