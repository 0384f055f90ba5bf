"""On a real cluster: how soon a program of one's own trains, how soon a changed line does, and what a kill costs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import ApiException

from testbed import images
from testbed.bed import Bed
from testbed.oci import image_name
from tests.bench.bench_recovery import PATIENCE, STEPS_BEFORE, bench_namespace, is_back, trains
from tests.bench.bench_step import environment
from tests.bench.result import Result, Table, UnavailableError
from tests.bench.stats import ratio, spread
from tests.e2e.conftest import STORAGE
from tests.e2e.kube import Json, Namespace, holds, status

PROGRAMS = Path(__file__).parent / "programs"
KINDS: dict[str, Json] = {
    "script": {"script": {"path": "train.py", "checkpoints": ["out"]}},
    "recipe": {"recipe": {"function": "train:make", "batchSize": 16}, "loop": {"duration": "1000ep", "seed": 0}},
    "lightning": {"script": {"path": "train.py"}},
    "transformers": {"script": {"path": "train.py", "checkpoints": ["out"]}},
}
NAMES = {
    "script": "a script with torch.save", "recipe": "a recipe", "lightning": "an unchanged Lightning script",
    "transformers": "an unchanged script with Transformers' Trainer",
}  # fmt: skip
START, WATCH, IMAGE = "trainmaster submit", "a changed line, submit --watch", "a changed line, built into an image"
BUILT = "docker.io/trainmaster/bench:"
ABOUT = f"""\
One worker with half a CPU on the cluster of `KUBECONFIG` (the test bed), one job at a time, on the client's clock.
Submitting is timed from the start of the command, or from the moment when a line of the program has been changed, to
the moment when a watch sees the new job `Running`, which is set by its first step. The image is built by the test bed's
own builder from the trainer's image with the program as its only new layer, and brought to both nodes without a
registry, so what a registry costs isn't in it; then the job is applied with `code: {{image: /app}}`. A kill is SIGKILL
to the rank after {STEPS_BEFORE} steps; it is timed to the moment when the watch sees the job `Running` again.
"""


def run(repeats: int, *, quick: bool) -> Result:
    """Every way to start in turn, then every kind of program killed."""
    taken: dict[str, list[float]] = {START: [], WATCH: [], IMAGE: []}
    killed: dict[str, list[float]] = {kind: [] for kind in KINDS}
    if not Bed().exists:
        raise UnavailableError("images are brought to the nodes of the test bed: `make cluster-up`")
    with bench_namespace() as namespace:
        for turn in range(1 if quick else repeats):
            for name, seconds in _starts(namespace, f"s{turn}").items():
                taken[name].append(seconds)
                print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)
            for kind in KINDS:
                killed[kind].append(_killed(namespace, f"k{turn}-{kind}", kind))
                print(f"{kind}, killed: back after {killed[kind][-1]:.1f} s", file=sys.stderr, flush=True)
    return result(taken, killed)


def result(taken: dict[str, list[float]], killed: dict[str, list[float]]) -> Result:
    """Tables of what was measured."""
    starts = [
        [name, spread(seconds), "" if name == IMAGE else str(ratio(seconds, taken[IMAGE]))]
        for name, seconds in taken.items()
    ]
    kills = [[NAMES[kind], spread(seconds)] for kind, seconds in killed.items()]
    tables = [
        Table(["from", "seconds", "of the image's"], starts, "To the first step of a program of one's own"),
        Table(["program", "seconds"], kills, "From SIGKILL to the next step"),
    ]
    samples: dict[str, Any] = {"starts": taken, "killed": killed}
    return Result("submit", "Submitting a program of one's own", ABOUT, tables, samples=samples)


def job_of(name: str, kind: str, **code: Any) -> Json:
    """The job of a folder."""
    pod = {"cpus": "500m", "memory": "3Gi"}
    return {
        "apiVersion": "trainmaster.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {
            "training": {"code": code or {"path": "src"}, **KINDS[kind]},
            "storage": dict(STORAGE),
            "checkpoint": {"every": "200step"},
            "run": {"stopGraceSeconds": 5},
            "cluster": {"head": dict(pod), "workers": {**pod, "count": 1}},
        },
    }


@contextmanager
def _folder(name: str, kind: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="trainmaster-bench-") as place:
        folder = Path(place)
        shutil.copytree(PROGRAMS / kind, folder / "src")
        (folder / "job.yaml").write_text(yaml.safe_dump(job_of(name, kind)))
        yield folder


def _submit(namespace: Namespace, folder: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "trainmaster_cli.main", "submit", "job.yaml", "-n", namespace.name, *more]
    with_cluster = {**environment(), "KUBECONFIG": namespace.cluster.kubeconfig}
    return subprocess.Popen(command, cwd=folder, env=with_cluster, stdout=subprocess.DEVNULL)


def _starts(namespace: Namespace, name: str) -> dict[str, float]:
    """Submit, change a line while `--watch` looks, and change another that is built into an image."""
    found = {}
    with _folder(name, "script") as folder:
        began = time.monotonic()
        watching = _submit(namespace, folder, "--watch")
        try:
            found[START] = _first_step(namespace, name, began, lambda job: True)
            old = namespace.job(name)["metadata"]["uid"]
            began = _change(folder / "src" / "train.py")
            found[WATCH] = _first_step(namespace, name, began, lambda job: job["metadata"]["uid"] != old)
        finally:
            watching.terminate()
            watching.wait()
        _delete(namespace, name)
        began = _change(folder / "src" / "train.py")
        image = _image_of(folder, name)
        job = job_of(name, "script", image="/app")
        job["spec"]["cluster"] |= {"image": image}
        namespace.apply(job)
        found[IMAGE] = _first_step(namespace, name, began, lambda job: True)
        _delete(namespace, name)
    return found


def _image_of(folder: Path, name: str) -> str:
    """Build an image with the program in its working directory, and bring it to the nodes."""
    file, image = folder / "Dockerfile", BUILT + name
    file.write_text(f"FROM {image_name('trainer')}\nCOPY src /app\n")
    images.build(file, image, folder)
    Bed().load([image])
    return image


def _change(file: Path) -> float:
    """Change a line, and return when that was."""
    file.write_text(file.read_text() + "# changed\n")
    return time.monotonic()


def _first_step(namespace: Namespace, name: str, began: float, is_meant: Callable[[Json], bool]) -> float:
    job = _wait(namespace, name, lambda each: is_meant(each) and trains(each))
    seconds = time.monotonic() - began
    assert not holds(job, "Failed"), namespace.explain(name)
    return seconds


def _wait(namespace: Namespace, name: str, until: Callable[[Json], bool]) -> Json:
    """Look at a job that may not be there yet, or be replaced, ten times a second."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(ApiException):
            if until(job := namespace.job(name)):
                return job
        time.sleep(0.1)
    raise AssertionError(f"{name}: nothing after {PATIENCE:.0f} s")


def _killed(namespace: Namespace, name: str, kind: str) -> float:
    with _folder(name, kind) as folder:
        assert _submit(namespace, folder, "--detach").wait() == 0
        before = namespace.at_step(name, STEPS_BEFORE, PATIENCE)
        namespace.kill_training_process(name, 1, 0)
        struck = time.monotonic()
        after = namespace.wait(name, lambda job: is_back(before, job) or holds(job, "Failed"), "back", PATIENCE)
        seconds = time.monotonic() - struck
        assert not holds(after, "Failed"), namespace.explain(name)
        assert status(after)["resume"] in ("Exact", "AsTheScript"), status(after)
        _delete(namespace, name)
    return seconds


def _delete(namespace: Namespace, name: str) -> None:
    namespace.cluster.kubectl("delete", "trainingjob", name, "-n", namespace.name)
    namespace.wait_no_pods(name)
