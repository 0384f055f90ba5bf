"""`trainmaster run` with a real Ray: to the end, through kills and stops, always to the same weights."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from trainmaster_trainer.processes import descendants

from tests.factories import CHECKPOINT_EVERY as EVERY
from tests.factories import load_example, of_cheap_steps
from tests.integration.processes import kill_all

pytestmark = pytest.mark.ray


def wait(
    condition: Callable[[], Any], what: str, seconds: float = 240, unless: subprocess.Popen[str] | None = None
) -> Any:
    """Wait for a condition; fail at once when the process `unless` has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        if unless is not None and unless.poll() is not None:
            raise AssertionError(f"{what}: the process ended with {unless.returncode}: {unless.communicate()[0]}")
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


@dataclass
class Laptop:
    """A working directory with one job in it."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.folder / "job.yaml"

    def write(self, **loop: Any) -> None:
        job = of_cheap_steps(load_example("digits"))
        job["spec"]["training"]["loop"] |= loop
        job["spec"]["checkpoint"] = {"every": f"{EVERY}step", "keepBest": 0}
        del job["spec"]["tracking"]
        self.file.write_text(yaml.safe_dump(job))

    def start(self, *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            # as the installed command does, which doesn't look for modules in the working directory
            [sys.executable, "-P", "-m", "trainmaster_cli.main", "run", "job.yaml", "--plain", *options],
            cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **self.environment},
        )  # fmt: skip
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], code: int = 0) -> str:
        out, _ = process.communicate(timeout=400)
        assert process.returncode == code, out
        return out

    def run_dir(self) -> Path | None:
        found = list(self.folder.glob("trainmaster-runs/default/digits/*/FENCE"))
        return found[0].parent if found else None

    def saved_step(self) -> int:
        run = self.run_dir()
        pointer = run / "LATEST" if run else None
        return int(json.loads(pointer.read_text())["step"]) if pointer and pointer.exists() else 0

    def weights(self) -> bytes:
        run = self.run_dir()
        assert run is not None
        return (run / "model/model.safetensors").read_bytes()

    def events(self) -> list[dict[str, Any]]:
        run = self.run_dir()
        assert run is not None
        return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]

    def kill_training_process(self, process: subprocess.Popen[str]) -> int:
        pid: int = wait(lambda: next(iter(training_processes(process.pid)), None), "a training process", unless=process)
        os.kill(pid, signal.SIGKILL)
        return pid


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def training_processes(pid: int) -> list[int]:
    return [p for p in descendants(pid) if name(p).startswith("rank ")]


def spares(pid: int) -> list[int]:
    return [p for p in descendants(pid) if name(p) == "spare"]


def maps(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return ""


def driver_of(pid: int) -> int:
    return next(p for p in descendants(pid) if "trainmaster_trainer.driver.attempt" in command_line(p))


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    laptop = Laptop(tmp_path)
    laptop.write()
    yield laptop
    for process in laptop.started:
        if process.poll() is None:
            kill_all(process)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Weights of an undisturbed run."""
    laptop = Laptop(tmp_path_factory.mktemp("calm"))
    laptop.write()
    out = laptop.finish(laptop.start())
    assert "complete" in out
    found = re.search(r"test/accuracy ([0-9.]+)", out)
    assert found is not None
    assert float(found[1]) >= 0.97
    assert "kubectl apply -f job.yaml" in out
    again = laptop.finish(laptop.start())
    assert "complete" in again
    assert "--fresh" in again
    return laptop.weights()


def test_killed_twice(laptop: Laptop, calm: bytes) -> None:
    """And once more between the two, while the ranks start."""
    process = laptop.start()
    wait(lambda: laptop.saved_step() >= EVERY, "the first checkpoint", unless=process)
    old = training_processes(process.pid)
    laptop.kill_training_process(process)
    step = laptop.saved_step()
    new = wait(
        lambda: next((p for p in training_processes(process.pid) if p not in old), None),
        "a replacement",
        unless=process,
    )
    os.kill(new, signal.SIGKILL)  # long before it trains
    wait(lambda: laptop.saved_step() > step + EVERY, "another checkpoint", unless=process)
    laptop.kill_training_process(process)
    out = laptop.finish(process)
    assert out.count("is gone: it was killed by SIGKILL") == 3, out
    assert laptop.weights() == calm
    resumed = [e["step"] for e in laptop.events() if e.get("kind") == "Resumed"]
    assert len(resumed) == 3
    assert resumed[0] == 0
    assert all(s >= EVERY and s % EVERY == 0 for s in resumed[1:])


def test_a_crash_is_replaced_by_the_warm_spare(laptop: Laptop, calm: bytes) -> None:
    """SIGSEGV is told from SIGKILL; the replacement is the process that was warm, and starts in a fraction."""
    process = laptop.start()
    wait(lambda: laptop.saved_step() >= EVERY, "the first checkpoint", unless=process)
    wait(lambda: len(spares(process.pid)) == 2, "two spares", unless=process)
    wait(lambda: all("libtorch" in maps(p) for p in spares(process.pid)), "the spares' imports", unless=process)
    waiting = set(spares(process.pid))
    os.kill(training_processes(process.pid)[0], signal.SIGSEGV)
    struck = time.time()
    wait(lambda: set(training_processes(process.pid)) == waiting, "the spares train", unless=process)
    out = laptop.finish(process)
    assert "crashed with SIGSEGV" in out, out
    assert laptop.weights() == calm
    first, again = [e for e in laptop.events() if e.get("kind") == "FirstStep"]
    back = datetime.fromisoformat(again["time"]).timestamp() - struck
    assert back < first["seconds"] / 2, (back, first["seconds"])


@pytest.mark.parametrize(
    ("actor", "says"),
    [("RayTrainWorker", "its agent was lost"), ("TrainController", "")],
)
def test_a_lost_part_of_ray_train_is_replaced(laptop: Laptop, calm: bytes, actor: str, says: str) -> None:
    process = laptop.start()
    wait(lambda: laptop.saved_step() >= EVERY, "the first checkpoint", unless=process)
    ranks = training_processes(process.pid)
    parts = [p for p in descendants(process.pid) if command_line(p).startswith(f"ray::{actor}")]
    os.kill(parts[-1], signal.SIGKILL)
    wait(lambda: len(set(training_processes(process.pid)) - set(ranks)) == 2, "other ranks", unless=process)
    out = laptop.finish(process)
    assert says in out, out
    assert laptop.weights() == calm


@pytest.mark.parametrize("part", ["gcs_server", "raylet", "ray::RuntimeEnvAgent"])
def test_somebody_kills_ray(laptop: Laptop, part: str) -> None:
    """It ends with a class and advice within seconds; without its agents the raylet ends, and then the driver."""
    process = laptop.start()
    wait(lambda: laptop.saved_step() >= EVERY, "the first checkpoint", unless=process)
    victim = next(p for p in descendants(process.pid) if command_line(p).split("\0")[0].endswith(part))
    os.kill(victim, signal.SIGKILL)
    struck = time.monotonic()
    out = laptop.finish(process, 1)
    assert time.monotonic() - struck < 15
    assert "HeadLost" in out, out
    name = part if part == "gcs_server" else "raylet"
    assert re.search(
        rf"^Ray's .*\({name}\) (was killed|ended).*, or this machine ran out of memory$", out, re.MULTILINE
    )
    assert "next:" in out
    assert "Traceback" not in out


def test_a_long_tmpdir_and_the_user_s_own_queue_py(laptop: Laptop, calm: bytes) -> None:
    """macOS has 48 characters; and what lies beside the job shadows none of Python's modules, in no process."""
    folder = laptop.folder / ("t" * 60)
    folder.mkdir()
    taken = ("queue", "select", "random", "types", "json", "token", "numpy", "torch", "ray", "logging")
    for module in taken:
        (laptop.folder / f"{module}.py").write_text(f"raise RuntimeError('{module}.py of the user was imported')\n")
    laptop.environment = {"TMPDIR": str(folder)}
    laptop.finish(laptop.start())
    assert laptop.weights() == calm


def test_interrupted_and_then_its_driver_is_killed(laptop: Laptop, calm: bytes) -> None:
    process = laptop.start()
    wait(lambda: laptop.saved_step() >= EVERY, "the first checkpoint", unless=process)
    process.send_signal(signal.SIGINT)
    out = laptop.finish(process, 75)
    again = re.search(r"^resume with: (\S*trainmaster) run job.yaml$", out, re.MULTILINE)
    assert again
    assert shutil.which(again[1]), "the command can be typed as it stands"
    stopped = int(re.search(r"saved at step (\d+)", out)[1])  # type: ignore[index]
    assert laptop.saved_step() == stopped

    process = laptop.start()
    wait(lambda: laptop.saved_step() > stopped, "a checkpoint of the second start", unless=process)
    everything = descendants(process.pid)
    heavy = [p for p in everything if command_line(p).startswith("ray::") and "libtorch" in maps(p)]
    assert heavy == [], "nothing but a rank or its spare loads torch"
    os.kill(driver_of(process.pid), signal.SIGKILL)
    out = laptop.finish(process, 1)
    assert f"resumed from step {stopped}" in out
    assert "failed: HeadLost\nthe driver was killed by SIGKILL" in out
    wait(lambda: not [p for p in everything if command_line(p).startswith("ray::")], "no Ray process is left", 60)

    laptop.finish(laptop.start())
    assert laptop.weights() == calm


def test_refusals(laptop: Laptop) -> None:
    """A second run beside the first, and a changed file under the same name: a sentence each."""
    laptop.write(duration="10000ep")  # far longer than the second command takes on a busy machine
    process = laptop.start()
    wait(lambda: laptop.run_dir() is not None, "the run has begun")
    assert f"is already running in process {process.pid}" in laptop.finish(laptop.start(), 2)
    process.send_signal(signal.SIGINT)
    laptop.finish(process, 75)
    laptop.write(duration="10000ep", seed=43)
    out = laptop.finish(laptop.start(), 2)
    assert "training.loop.seed: 42 -> 43" in out
    assert "--fresh" in out
