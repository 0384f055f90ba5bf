"""Head and workers by their launchers, each in a network namespace of its own: an attempt without Kubernetes."""

from __future__ import annotations

import contextlib
import copy
import http.server
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from trainmaster_api import names
from trainmaster_api.layout import Pointer
from trainmaster_api.messages import ExitCode, ExitMessage, Outcome, ProgressMessage, TrainerState
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.processes import descendants

from tests.factories import CHECKPOINT_EVERY as EVERY
from tests.factories import Json, change, load_example, of_cheap_steps, parse
from tests.integration.processes import kill_all

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and the ip command"
    ),
]


def wait(condition: Callable[[], Any], what: str, seconds: float = 240, unless: Attempt | None = None) -> Any:
    """Wait for a condition; fail at once when the head of `unless` has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        if unless is not None and unless.pods["head0"].poll() is not None:
            raise AssertionError(f"{what}: the head ended: {unless.log('head0')}")
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass
class Network:
    """Three hosts on a bridge, and this machine as the fourth."""

    number: int

    @property
    def tag(self) -> str:
        return f"tmr{self.number % 100000}"

    @property
    def subnet(self) -> str:
        """Its own, because a run that was killed leaves its bridge behind, and another one may run beside this."""
        return f"10.77.{self.number % 250}"

    @property
    def gateway(self) -> str:
        return f"{self.subnet}.1"

    def address(self, host: int) -> str:
        return f"{self.subnet}.{10 + host}"

    def namespace(self, host: int) -> str:
        return f"{self.tag}{host}"


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    network = Network(os.getpid())
    bridge = f"{network.tag}b"
    ip("link", "add", bridge, "type", "bridge")
    try:
        ip("addr", "add", f"{network.gateway}/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for host in range(3):
            name, link = network.namespace(host), f"{network.tag}v{host}"
            ip("netns", "add", name)
            ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", link, "master", bridge, "up")
            ip("-n", name, "addr", "add", f"{network.address(host)}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield network
    finally:
        for host in range(3):
            subprocess.run(["ip", "netns", "del", network.namespace(host)], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)


class Operator(http.server.ThreadingHTTPServer):
    """Takes progress."""

    def __init__(self, host: str) -> None:
        self.messages: list[ProgressMessage] = []
        self.seen: queue.Queue[ProgressMessage] = queue.Queue()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = ProgressMessage.decode(self.rfile.read(int(self.headers["Content-Length"])))
                outer.messages.append(message)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        super().__init__((host, 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@dataclass
class Attempt:
    """The pods of an attempt, as processes."""

    folder: Path
    network: Network
    job: TrainingJob
    number: int
    operator: Operator
    pods: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    scratches: list[Path] = field(default_factory=list)

    def start(self, role: str, index: int = 0) -> subprocess.Popen[bytes]:
        host = 0 if role == names.ROLE_HEAD else 1 + index
        name = f"{role}{index}"
        run_dir = self.folder / "run"
        scratch = Path(tempfile.mkdtemp(prefix="tm-"))  # short: Ray's socket paths may have 107 bytes
        self.scratches.append(scratch)
        run_dir.mkdir(exist_ok=True)
        (run_dir / names.KEY_JOB).write_text(json.dumps(self.job.wire()))
        (run_dir / names.KEY_RAY).write_text("0" * 32)
        (run_dir / names.KEY_OWNER).write_text(self.job.metadata.uid)
        address = f"http://{self.network.gateway}:{self.operator.server_address[1]}/v1/progress"
        (run_dir / names.KEY_PROGRESS_URL).write_text(address)
        (run_dir / "token").write_text("token")
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            "LOGNAME": "trainmaster",
            "TRAINMASTER_RUN_DIR": str(run_dir),
            "TRAINMASTER_SCRATCH": str(scratch),
            "TRAINMASTER_TERMINATION": str(self.folder / f"{name}-{self.number}.json"),
            "TRAINMASTER_TOKEN_FILE": str(run_dir / "token"),
            names.ENV_ROLE: role,
            names.ENV_ATTEMPT: str(self.number),
            names.ENV_INDEX: str(index),
            names.ENV_JOB_UID: self.job.metadata.uid,
            names.ENV_POD_IP: self.network.address(host),
            names.ENV_POD_NAME: f"digits-{self.number}-{name}",
            names.ENV_HEAD_ADDRESS: self.network.address(0),
        }
        with (self.folder / f"{name}-{self.number}.log").open("ab") as log:
            pod = subprocess.Popen(
                ["ip", "netns", "exec", self.network.namespace(host), sys.executable, "-m",
                 "trainmaster_trainer.launcher"],
                env=environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.pods[name] = pod
        return pod

    def process(self, name: str, command: str) -> int | None:
        """A process below a pod's launcher by a part of its command line."""
        for pid in descendants(self.pods[name].pid):
            with contextlib.suppress(OSError):
                if command in Path(f"/proc/{pid}/cmdline").read_text():
                    return pid
        return None

    def rank(self, name: str) -> int | None:
        """The process that trains below a pod's launcher."""
        for pid in descendants(self.pods[name].pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("rank "):
                    return pid
        return None

    def message(self, name: str) -> ExitMessage:
        found = ExitMessage.decode((self.folder / f"{name}-{self.number}.json").read_text())
        assert found is not None
        return found

    def log(self, name: str) -> str:
        return (self.folder / f"{name}-{self.number}.log").read_text(errors="replace")

    def run_dir(self) -> Path:
        meta = self.job.metadata
        return self.folder / "store" / meta.namespace / meta.name / meta.uid

    def saved_step(self) -> int:
        path = self.run_dir() / "LATEST"
        return Pointer.model_validate_json(path.read_text()).step if path.exists() else 0

    def newest(self) -> ProgressMessage:
        return self.operator.messages[-1]

    def end(self) -> None:
        for pod in self.pods.values():
            if pod.poll() is None:
                kill_all(pod)
        for scratch in self.scratches:
            shutil.rmtree(scratch, ignore_errors=True)


def make_data() -> Json:
    data = of_cheap_steps(load_example("digits"))
    data["spec"]["checkpoint"] = {"every": f"{EVERY}step", "keepBest": 0}
    del data["spec"]["tracking"]
    return data


@pytest.fixture
def attempts(tmp_path: Path, network: Network) -> Iterator[Callable[..., Attempt]]:
    data = make_data()
    data["metadata"]["uid"] = "uid-1"
    data["spec"]["storage"] = {"uri": str(tmp_path / "store")}
    operator = Operator(network.gateway)
    made: list[Attempt] = []

    def begin(number: int, **changes: Any) -> Attempt:
        job = parse(change(copy.deepcopy(data), {f"spec.{key.replace('__', '.')}": changes[key] for key in changes}))
        made.append(Attempt(tmp_path, network, job, number, operator))
        made[-1].start(names.ROLE_HEAD)
        made[-1].start(names.ROLE_WORKER, 0)
        made[-1].start(names.ROLE_WORKER, 1)
        return made[-1]

    yield begin
    for one in made:
        one.end()
    operator.shutdown()
    operator.server_close()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Weights of the same job on a laptop: the two forms must agree to the last bit."""
    folder = tmp_path_factory.mktemp("laptop")
    (folder / "job.yaml").write_text(yaml.safe_dump(make_data()))
    done = subprocess.run(
        [sys.executable, "-m", "trainmaster_cli.main", "run", "job.yaml", "--plain"],
        cwd=folder, capture_output=True, text=True, timeout=500, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("**/model/model.safetensors")).read_bytes()


def test_everything_that_can_happen(attempts: Callable[[int], Attempt], calm: bytes) -> None:
    """A process is killed, a pod is told to end, a host loses power, the head is told to end: the same weights."""
    one = attempts(1)
    os.kill(wait(lambda: one.process("head0", "dashboard/dashboard.py"), "the dashboard"), signal.SIGKILL)
    wait(lambda: one.saved_step() >= EVERY, "the first checkpoint, without a dashboard", unless=one)
    os.kill(wait(lambda: one.rank("worker1"), "a training process"), signal.SIGKILL)
    wait(lambda: one.newest().state is TrainerState.RECOVERING, "the operator hears of it", unless=one)
    trains_again(one, 1)
    lost = one.newest().lost_steps

    step = one.saved_step()
    one.pods["worker0"].send_signal(signal.SIGTERM)
    assert one.pods["worker0"].wait(60) == ExitCode.STOPPED
    assert "after a checkpoint" in one.message("worker0").message
    assert one.saved_step() > step
    one.start(names.ROLE_WORKER, 0)
    trains_again(one, 2)
    assert one.newest().lost_steps == lost, "nothing is lost when a pod is told to end"

    step = one.saved_step()
    wait(lambda: one.saved_step() > step, "another checkpoint", unless=one)
    kill_all(one.pods["worker1"])
    one.start(names.ROLE_WORKER, 1)
    trains_again(one, 3)
    saved = stop(one)
    two = attempts(2)
    assert two.pods["head0"].wait(400) == ExitCode.COMPLETE, two.log("head0")
    assert two.message("head0").outcome is Outcome.COMPLETE
    assert two.newest().resumed_from_step == saved
    assert two.newest().lost_steps == 0
    assert (two.run_dir() / "model/model.safetensors").read_bytes() == calm
    for number in (1, 2):
        assert (two.run_dir() / f"logs/a{number}/digits-{number}-head0.log").exists()


def trains_again(one: Attempt, recoveries: int) -> None:
    wait(
        lambda: one.newest().recoveries == recoveries and one.newest().state is TrainerState.TRAINING,
        "training again",
        unless=one,
    )


def stop(one: Attempt) -> int:
    """SIGTERM to the head saves, and the workers end by themselves; the step that was saved."""
    one.pods["head0"].send_signal(signal.SIGTERM)
    assert one.pods["head0"].wait(60) == ExitCode.STOPPED
    stopped = one.message("head0").checkpoint
    assert stopped is not None
    assert stopped.step == one.saved_step()
    assert one.newest().checkpoint == stopped, "the operator was told before the end"
    for name in ("worker0", "worker1"):
        assert one.pods[name].wait(30) == ExitCode.FAILED
    return stopped.step


def test_pods_of_a_search_are_told_to_end(attempts: Callable[..., Attempt]) -> None:
    """One is drained, then the job is deleted, which tells all at once: no checkpoint is written but for that."""
    tuning = {
        "space": {"optimizer.lr": {"min": 1e-4, "max": 1e-2}},
        "pruning": {"algorithm": "none"},
        "budget": {"maxTrials": 2},
    }
    one = attempts(1, tuning=tuning, training__loop__duration="5000ep", checkpoint__every="1000000step")
    wait(lambda: min(reports(one)) >= 3, "validations of both trials", unless=one)
    assert saved(one) == [0, 0]
    one.pods["worker0"].send_signal(signal.SIGTERM)
    assert one.pods["worker0"].wait(60) == ExitCode.STOPPED
    assert "after a checkpoint" in one.message("worker0").message
    (step,) = filter(None, saved(one))
    drained = saved(one).index(step)
    before = reports(one)[drained]
    one.start(names.ROLE_WORKER, 0)
    wait(lambda: reports(one)[drained] >= before + 3, "it continues", unless=one)
    for name in ("worker1", "worker0", "head0"):
        one.pods[name].send_signal(signal.SIGTERM)
    assert one.pods["head0"].wait(60) == ExitCode.STOPPED
    assert one.message("head0").message == "the trials have saved and stopped"
    assert min(saved(one)) > 0
    assert saved(one)[drained] > step


def reports(one: Attempt) -> list[int]:
    """How many validations the journal has of each of two trials."""
    files = sorted(one.run_dir().glob("tuning/journal-*.jsonl"))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    trials = [line["trial_id"] for line in lines if "intermediate_value" in line]
    return [trials.count(0), trials.count(1)]


def saved(one: Attempt) -> list[int]:
    """The step of the newest checkpoint of each of two trials; 0: it has none."""
    files = [one.run_dir() / f"trials/{number:04d}/LATEST" for number in (0, 1)]
    return [Pointer.model_validate_json(file.read_text()).step if file.exists() else 0 for file in files]


def test_wrong_data_ends_the_attempt(attempts: Callable[[int], Attempt]) -> None:
    """Not retried, named by class and rank, without a stack."""
    one = attempts(1)
    one.end()
    data = one.job.spec.training.data.model_copy(update={"source": "/nowhere/rows.csv", "target": "y"})
    training = one.job.spec.training.model_copy(update={"data_or_none": data})
    spec = one.job.spec.model_copy(update={"training": training})
    one.job = one.job.model_copy(update={"spec": spec})
    for role, index in ((names.ROLE_HEAD, 0), (names.ROLE_WORKER, 0), (names.ROLE_WORKER, 1)):
        one.start(role, index)
    assert one.pods["head0"].wait(240) == ExitCode.FAILED
    found = one.message("head0")
    assert found.failure_class == "DataError", found
    assert "/nowhere/rows.csv" in found.message
    assert "Traceback" not in found.message
    assert found.rank is not None
