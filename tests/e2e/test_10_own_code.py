"""Programs of the user's own, submitted from a folder: one that loses its pods, one with packages of its own."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from tests.e2e.conftest import ROOT, STORAGE, keys, read, run_prefix, spread, wait_checkpoint
from tests.e2e.kube import Json, Namespace, condition, status
from tests.unit.trainer.code.world import wheel

STEPS = 1500
SIZED = """
import digits
from tinywidth import WIDTH


class Net(digits.Net):
    def __init__(self):
        super().__init__(WIDTH)
"""
PROGRAM = """
import os
import sys
import time

import torch
import torch.distributed as dist

steps, rank, world = int(sys.argv[1]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
dist.init_process_group("gloo")
torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
net = torch.nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
os.makedirs("out", exist_ok=True)
step = 0
if os.path.exists("out/last.pt"):
    state = torch.load("out/last.pt")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    step = state["step"]
    print("resumed at step", step)
while step < steps:
    draws = torch.Generator().manual_seed(step * world + rank)
    x = torch.randn(16, 8, generator=draws)
    optimizer.zero_grad()
    ((net(x) - x.sum(1, keepdim=True)) ** 2).mean().backward()
    optimizer.step()
    step += 1
    time.sleep(float(os.environ.get("PAUSE", "0.05")))
    if rank == 0 and step % 100 == 0:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, "out/next")
        os.replace("out/next", "out/last.pt")
print("rank", rank, "is done")
"""


def submit(ns: Namespace, folder: Path, name: str, training: Json, count: int, **spec: Json) -> None:
    """What a person types in the folder of the program; its code is in `src`."""
    pod = {"cpus": "250m", "memory": "3Gi"}
    job = {
        "apiVersion": "trainmaster.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {
            "training": training,
            "storage": dict(STORAGE),
            "checkpoint": {"every": "50step"},
            "cluster": {"head": dict(pod), "workers": {**pod, "count": count, "template": spread(name)}},
            **spec,
        },
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    command = [sys.executable, "-m", "trainmaster_cli.main", "submit", "job.yaml", "-n", ns.name, "--detach"]
    environment = {**os.environ, "KUBECONFIG": ns.cluster.kubeconfig}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def undisturbed(folder: Path, steps: int) -> dict[str, torch.Tensor]:
    """The weights that torchrun ends with on this machine, undisturbed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PAUSE": "0", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, "src/train.py", str(steps)],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        timeout=300,
    )
    return weights((folder / "out" / "last.pt").read_bytes())


def weights(content: bytes) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(io.BytesIO(content))["model"]
    return found


def test_program_survives_the_loss_of_a_pod_and_of_the_head(
    shared_namespace: Namespace, s3: Any, tmp_path: Path
) -> None:
    ns, name = shared_namespace, "own"
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text(PROGRAM)
    script = {"path": "train.py", "args": [str(STEPS)], "checkpoints": ["out"]}
    submit(ns, tmp_path, name, {"code": {"path": "src"}, "script": script}, 2)
    started = ns.job(name)
    wait_checkpoint(s3, started, step=100)
    ns.delete_pod(f"{name}-1-w-0")
    first = resumed(s3, started, 1)[0]
    wait_checkpoint(s3, started, step=first + 200)
    ns.delete_pod(f"{name}-1-head")
    job: Json = ns.complete(name)
    found = status(job)
    assert found["resume"] == "AsTheScript"
    assert (found["attempt"], found["restarts"]["recoveries"]) == (2, 1)
    assert condition(job, "Degraded").get("status") != "True"
    steps = resumed(s3, job, 2)
    assert all(step % 100 == 0 for step in steps)
    assert steps[1] >= first + 200
    assert found["progress"]["step"] == STEPS
    kept = keys(s3, run_prefix(job))
    (model,) = (key for key in kept if key in ("model/out/last.pt", "model/node-0/out/last.pt"))
    expected = undisturbed(tmp_path, STEPS)
    for key, tensor in weights(read(s3, run_prefix(job) + model)).items():
        assert torch.equal(tensor, expected[key]), key


def resumed(s3: Any, job: Json, times: int) -> list[int]:
    """Wait until the program has read its file so often; return the steps that it resumed at."""
    deadline = time.monotonic() + 240
    while True:
        events = [json.loads(line) for line in read(s3, run_prefix(job) + "events.jsonl").splitlines()]
        found = [event for event in events if event.get("kind") == "Resumed" and event.get("reads")]
        assert {event["reads"] for event in found} <= {"the program read out/last.pt"}
        if len(found) >= times:
            return [event["step"] for event in found]
        assert time.monotonic() < deadline, events
        time.sleep(0.5)


def test_lightning_with_packages_of_its_own(shared_namespace: Namespace, s3: Any, tmp_path: Path) -> None:
    """No program: a module and its data, and a package that the image lacks, as a wheel beside them."""
    ns, name, code = shared_namespace, "packages", tmp_path / "src"
    shutil.copytree(ROOT / "examples" / "lightning", code)
    (code / "lock.txt").write_text(wheel(code / "wheels", "tinywidth", "1.0", "WIDTH = 48\n"))
    (code / "sized.py").write_text(SIZED)
    lightning = yaml.safe_load((code / "trainingjob.yaml").read_text())["spec"]["training"]["lightning"]
    lightning["module"] = {"class": "sized:Net"}
    lightning["trainer"]["max_epochs"] = 200
    own = {"path": "src", "requirements": "lock.txt", "wheels": "wheels"}
    submit(ns, tmp_path, name, {"framework": "lightning", "code": own, "lightning": lightning}, 1)
    wait_checkpoint(s3, ns.job(name))
    ns.kill_training_process(name, 1, 0)
    job = ns.complete(name)
    assert status(job)["resume"] == "Exact"
    assert status(job)["restarts"]["recoveries"] == 1
    (made,) = json.loads(read(s3, run_prefix(job) + "environment.json"))["attempts"]
    assert made["packages"]["tinywidth"] == "1.0"
    assert made["code"]["sha256"] == job["spec"]["training"]["code"]["inline"]["sha256"]
    # there is no registry: the kubelets report the checksum of the image itself, the same for all pods
    (image,) = made["imageIds"]
    assert re.fullmatch("sha256:[0-9a-f]{64}", image)
