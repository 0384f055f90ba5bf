"""Agents under a real Ray Train, and a rank in a real memory cgroup."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from trainmaster_trainer.cluster.commands import laptop_environment
from trainmaster_trainer.ipc.messages import Exited, Start, decode, encode

from tests.factories import load_example

CGROUP = Path("/sys/fs/cgroup")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Short: a socket's path has 107 characters at most."""
    with tempfile.TemporaryDirectory(prefix="tm-") as folder:
        yield Path(folder)


REPORTS = """
import json, os, sys
from pathlib import Path
import yaml
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.validation.validate import validate
from trainmaster_trainer.cluster import train as cluster
from trainmaster_trainer.ipc.settings import DriverSettings

scratch = sys.argv[1]
job, problems = validate(yaml.safe_load(sys.stdin.read()))
settings = DriverSettings(
    job_file="", attempt=1, storage_uri="/s", base_dir=scratch, scratch=scratch, result_file="",
    token_file="",
)

def agent(config):
    from ray import train
    for step in range(3):
        train.report({"step": step, "rank": train.get_context().get_world_rank()})
    where = Path(config["base_dir"]) / f"rank-{train.get_context().get_world_rank()}"
    where.write_text(json.dumps({"torch": "torch" in sys.modules, "cwd": os.getcwd()}))

cluster.connect(settings, job)
cluster.run_agents(settings, job, 0, agent)
os._exit(0)
"""


@pytest.mark.ray
def test_an_agent_may_report_to_ray_train(scratch: Path) -> None:
    """As Ray's own integrations do; each report is a barrier over all agents."""
    data = load_example("digits")
    data["metadata"]["uid"] = "u"
    (scratch / "token").write_text("t" * 64)
    environment = laptop_environment(scratch / "token", scratch, os.environ)
    done = subprocess.run(
        [sys.executable, "-c", REPORTS, str(scratch)],
        input=json.dumps(data), capture_output=True, text=True, timeout=200, check=False,
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in (0, 1):
        said = json.loads((scratch / f"rank-{rank}").read_text())
        assert said["torch"] is False


# An agent whose rank takes more memory than its cgroup has.
HUNGRY = """
import os, socket, sys, yaml
from trainmaster_api.validation.validate import validate
from trainmaster_trainer.cluster.agent import Agent
from trainmaster_trainer.ipc.messages import Hello, Placement
job, problems = validate(yaml.safe_load(sys.stdin.read()))
place = Placement(rank=0, world_size=1, attempt=1, storage_uri="/s", base_dir="/", in_cluster=True)
rank = "import sys; found = [bytearray(b'x') * (1 << 20) for _ in range(1 << 14)]"
driver = socket.socket(fileno=int(sys.argv[1]))
Agent(driver, Hello(role="agent"), job, place, os.environ, (sys.executable, "-c", rank)).run()
"""


@pytest.fixture
def box() -> Iterator[Path]:
    """A memory cgroup of 300 MB, of whichever version this machine has."""
    unified = (CGROUP / "cgroup.controllers").exists()
    folder = (CGROUP if unified else CGROUP / "memory") / f"tm-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(str(300 << 20))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    yield folder
    folder.rmdir()


def test_memory_that_ran_out_is_told_from_a_kill(box: Path) -> None:
    ours, theirs = socket.socketpair()
    data = load_example("digits")
    with theirs:
        agent = subprocess.Popen(
            [sys.executable, "-c", HUNGRY, str(theirs.fileno())],
            stdin=subprocess.PIPE, text=True, pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
    try:
        (box / "cgroup.procs").write_text(str(agent.pid))
        assert agent.stdin is not None
        agent.stdin.write(json.dumps(data))
        agent.stdin.close()
        ours.settimeout(60)
        ours.sendall(encode(Start(generation=1, master_address="127.0.0.1", master_port=1)))
        with ours.makefile("rb") as lines:
            found = next(message for line in lines if isinstance(message := decode(line), Exited))
        assert (found.code, found.out_of_memory) == (-signal.SIGKILL, True)
    finally:
        agent.kill()
        agent.wait()
        ours.close()
