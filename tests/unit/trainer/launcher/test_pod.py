"""What a launcher reads before it starts anything, and what it leaves behind."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from trainmaster_api import names
from trainmaster_api.messages import ExitCode, ExitMessage, Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.cluster.commands import (
    JOIN,
    head_command,
    interface_of,
    laptop_environment,
    pod_environment,
    worker_command,
    write_token,
)
from trainmaster_trainer.ipc.heartbeat import beat, silence
from trainmaster_trainer.ipc.messages import Leaving, Left
from trainmaster_trainer.launcher import head as heads
from trainmaster_trainer.launcher import worker as workers
from trainmaster_trainer.launcher.head import Head
from trainmaster_trainer.launcher.identity import Pod, Refused
from trainmaster_trainer.launcher.worker import Worker
from trainmaster_trainer.oom import OomWatch
from trainmaster_trainer.processes import Children, descendants


@pytest.fixture
def environment(tmp_path: Path, job: TrainingJob) -> dict[str, str]:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / names.KEY_JOB).write_text(json.dumps(job.wire()))
    (run_dir / names.KEY_RAY).write_text("key\n")
    (run_dir / names.KEY_OWNER).write_text(job.metadata.uid)
    (run_dir / names.KEY_PROGRESS_URL).write_text("https://operator/v1/progress")
    (run_dir / names.KEY_PROGRESS_CA).write_text("")
    (tmp_path / "scratch").mkdir()
    return {
        names.ENV_ROLE: "worker",
        names.ENV_ATTEMPT: "3",
        names.ENV_INDEX: "1",
        names.ENV_JOB_UID: job.metadata.uid,
        names.ENV_POD_IP: "127.0.0.1",
        names.ENV_POD_NAME: "digits-3-w-1",
        "TRAINMASTER_RUN_DIR": str(run_dir),
        "TRAINMASTER_SCRATCH": str(tmp_path / "scratch"),
        "TRAINMASTER_TERMINATION": str(tmp_path / "termination"),
    }


def test_a_pod_reads_its_part(environment: dict[str, str]) -> None:
    pod = Pod.read(environment)
    assert (pod.role, pod.attempt, pod.index, pod.ip) == ("worker", 3, 1, "127.0.0.1")
    assert pod.token == names.ray_token("key", 3)


def test_a_foreign_secret_is_refused(environment: dict[str, str]) -> None:
    environment[names.ENV_JOB_UID] = "another"
    with pytest.raises(Refused, match=r"digits-run belongs to another TrainingJob .*0f3c9a1b.*another"):
        Pod.read(environment)


@pytest.mark.parametrize("key", [names.KEY_JOB, names.KEY_RAY, names.KEY_OWNER])
def test_a_missing_file_is_named(environment: dict[str, str], key: str) -> None:
    (Path(environment["TRAINMASTER_RUN_DIR"]) / key).unlink()
    with pytest.raises(Refused, match=key):
        Pod.read(environment)


def test_a_broken_job_is_named(environment: dict[str, str]) -> None:
    (Path(environment["TRAINMASTER_RUN_DIR"]) / names.KEY_JOB).write_text("{")
    with pytest.raises(Refused, match="no TrainingJob"):
        Pod.read(environment)


def test_a_missing_variable_is_named(environment: dict[str, str]) -> None:
    del environment[names.ENV_POD_IP]
    with pytest.raises(Refused, match="POD_IP"):
        Pod.read(environment)


def test_a_refusal_is_the_termination_message(environment: dict[str, str]) -> None:
    environment[names.ENV_JOB_UID] = "another"
    done = subprocess.run(
        [sys.executable, "-m", "trainmaster_trainer.launcher"],
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == ExitCode.FAILED
    message = ExitMessage.decode(Path(environment["TRAINMASTER_TERMINATION"]).read_text())
    assert message is not None
    assert message.failure_class is FailureClass.INVALID_CONFIGURATION
    assert "Traceback" not in done.stdout + done.stderr


def test_the_launcher_imports_nothing_heavy() -> None:
    code = "import sys, trainmaster_trainer.launcher.run; print(*sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=True)
    assert not {"torch", "ray", "numpy", "obstore", "mlflow", "rich"} & set(out.stdout.split())


def options(command: list[str]) -> dict[str, str]:
    rest = command[command.index("start") + 1 :]
    return dict(word.removeprefix("--").partition("=")[::2] for word in rest)


def test_the_head_offers_no_cpu_and_a_worker_one(job: TrainingJob, tmp_path: Path) -> None:
    head = options(head_command("10.0.0.1", tmp_path, job))
    assert "head" in head
    assert (head["num-cpus"], head["port"]) == ("0", str(names.PORT_GCS))
    assert json.loads(head["resources"]) == {"trainmaster_head": 1}
    command = worker_command("10.0.0.2", tmp_path, job, "digits-head")
    worker = options(command)
    assert "head" not in worker
    assert worker["num-cpus"] == "1"
    assert command[command.index(JOIN) + 1] == f"digits-head:{names.PORT_GCS}"
    assert json.loads(worker["resources"]) == {"trainmaster_worker": 1}
    assert worker["memory"] == str(int(2 * 2**30 * 0.8))


def test_every_port_is_fixed(job: TrainingJob, tmp_path: Path) -> None:
    """So that a NetworkPolicy can name them, and no two of them are the same."""
    head = options(head_command("10.0.0.1", tmp_path, job))
    ports = [value for name, value in head.items() if name.endswith("port") and "worker" not in name]
    own = [names.PORT_CONTROL, *range(names.PORT_RENDEZVOUS_MIN, names.PORT_RENDEZVOUS_MAX + 1)]
    assert len(ports) == 9
    assert "0" not in ports
    assert len({*ports, *map(str, own)}) == len(ports) + len(own)
    for port in (*map(int, ports), *own):
        assert not int(head["min-worker-port"]) <= port <= int(head["max-worker-port"])


def test_the_environment_is_ours_where_it_must_be(tmp_path: Path) -> None:
    base = {
        "RAY_AUTH_MODE": "disabled",
        "PYTHONSAFEPATH": "",
        "HOME": "/root",
        "RAY_health_check_period_ms": "1",
        "X": "y",
    }
    found = pod_environment(tmp_path / "t", tmp_path, "127.0.0.1", base)
    assert (found["RAY_AUTH_MODE"], found["HOME"]) == ("token", str(tmp_path))
    assert found["PYTHONSAFEPATH"] == "1", "or a user's queue.py is Ray's"
    assert (found["RAY_health_check_period_ms"], found["X"]) == ("1", "y")
    assert found["GLOO_SOCKET_IFNAME"] == interface_of("127.0.0.1")


def test_the_laptop_s_environment(tmp_path: Path) -> None:
    base = {"RAY_AUTH_MODE": "disabled", "GLOO_SOCKET_IFNAME": "eth7", "HOME": "/home/me"}
    found = laptop_environment(tmp_path / "t", tmp_path, base)
    assert (found["RAY_AUTH_MODE"], found["RAY_AUTH_TOKEN_PATH"]) == ("token", str(tmp_path / "t"))
    assert (found["PYTHONSAFEPATH"], found["RAY_TMPDIR"]) == ("1", str(tmp_path))
    assert (found["GLOO_SOCKET_IFNAME"], found["HOME"]) == ("eth7", "/home/me")


def test_only_we_can_read_the_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    write_token(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["sys/fs/cgroup/memory.events", "sys/fs/cgroup/memory/memory.oom_control"])
def test_kills_for_memory_are_counted(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text("oom_kill_disable 0\nunder_oom 0\noom 3\noom_kill 2\n")
    watch = OomWatch(tmp_path)
    assert not watch.happened()
    path.write_text("oom_kill 3\n")
    assert watch.happened()


def test_no_cgroup_no_kills(tmp_path: Path) -> None:
    assert not OomWatch(tmp_path).happened()


@pytest.mark.parametrize(
    ("own", "name"),
    [
        ("0::/user.slice/run-7.scope\n", "sys/fs/cgroup/user.slice/run-7.scope/memory.events"),
        ("4:memory:/box/7\n0::/\n", "sys/fs/cgroup/memory/box/7/memory.oom_control"),
        ("4:cpu,memory:/box/7\n", "sys/fs/cgroup/memory/box/7/memory.oom_control"),
    ],
)
def test_the_cgroup_of_this_process_counts(tmp_path: Path, own: str, name: str) -> None:
    """Outside of a container the files are not at the root of the tree."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(own)
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text("oom_kill 2\n")
    watch = OomWatch(tmp_path)
    path.write_text("oom_kill 3\n")
    assert watch.happened()


def children_script(body: str) -> subprocess.CompletedProcess[str]:
    """`Children` blocks signals of its whole process, so it gets one of its own."""
    code = f"import os, signal, sys, time\nfrom trainmaster_trainer.processes import Children\nc = Children()\n{body}"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)


def test_children_are_reaped_and_killed_with_their_own() -> None:
    done = children_script(
        "pid = c.start(['/bin/sh', '-c', 'trap \"\" TERM; sleep 100 & wait; sleep 100'], os.environ)\n"
        "c.wait(0.5)\n"
        "from trainmaster_trainer.processes import descendants\n"
        "below = descendants(pid)\n"
        "assert len(below) == 2, below\n"
        "c.end(pid, 0.3)\n"
        "while c.exit_of(pid) is None: c.wait(0.1)\n"
        "assert c.exit_of(pid) == -9\n"
        "alive = lambda p: os.path.exists(f'/proc/{p}') and ') Z ' not in open(f'/proc/{p}/stat').read()\n"
        "deadline = time.monotonic() + 30\n"
        "while any(map(alive, below)) and time.monotonic() < deadline: c.wait(0.1)\n"
        "assert not any(map(alive, below)), below\n"
    )
    assert done.returncode == 0, done.stderr


def test_a_child_gets_signals_that_we_hold_back() -> None:
    done = children_script(
        "pid = c.start(['/bin/sleep', '100'], os.environ)\n"
        "c.wait(0.3)\n"
        "c.signal(pid, signal.SIGTERM)\n"
        "while c.exit_of(pid) is None: c.wait(1)\n"
        "assert c.exit_of(pid) == -15, c.exits\n"
    )
    assert done.returncode == 0, done.stderr


def test_a_signal_ends_the_wait() -> None:
    done = children_script(
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "began = time.monotonic()\n"
        "assert c.wait(30)\n"
        "assert time.monotonic() - began < 5\n"
    )
    assert done.returncode == 0, done.stderr


def test_descendants_of_this_process() -> None:
    with subprocess.Popen(["/bin/sleep", "100"]) as child:
        assert child.pid in descendants(os.getpid())
        child.send_signal(signal.SIGKILL)


class Scripted(Children):
    """Exits and signals as a test writes them."""

    def __init__(self, exits: dict[int, int], stop: bool = False) -> None:
        self.exits = exits
        self.stop = stop
        self.sent: list[signal.Signals] = []

    def wait(self, seconds: float) -> bool:
        return self.stop

    def signal(self, pid: int, number: signal.Signals) -> None:
        self.sent.append(number)
        self.exits[pid] = -15


class Deaf(Scripted):
    """Nothing ends when it is told to."""

    def signal(self, pid: int, number: signal.Signals) -> None:
        self.sent.append(number)


DRIVER = 102


class Ray:
    """A node with the troubles that a test writes."""

    def __init__(self, *troubles: str, runs: bool = True, starts: int = 0) -> None:
        self.troubles, self.runs, self.starts = list(troubles), runs, starts
        self.ended = 0

    @property
    def may_start_again(self) -> bool:
        return self.starts > 0

    def trouble(self) -> str | None:
        return self.troubles[0] if self.troubles else None

    def start(self) -> None:
        self.starts -= 1
        self.troubles.pop(0)

    def end(self, seconds: float) -> None:
        self.ended += 1

    def last_lines(self) -> list[str]:
        return ["port 6379 is taken"]


def head(environment: dict[str, str], children: Children) -> Head:
    found = Head(Pod.read({**environment, names.ENV_ROLE: "head"}), children)
    found.log_file.write_bytes(b"")
    found._log = found.log_file.open("rb")
    return found


def test_the_result_of_the_driver_is_the_head_s(environment: dict[str, str]) -> None:
    one = head(environment, Scripted({DRIVER: 0}))
    one.result_file.write_text(ExitMessage(outcome=Outcome.COMPLETE, message="done").encode())
    assert one._watch(Ray(), DRIVER).message == "done"


def test_a_driver_that_dies_without_a_word(environment: dict[str, str]) -> None:
    found = head(environment, Scripted({DRIVER: -11}))._watch(Ray(), DRIVER)
    assert found.failure_class is FailureClass.INTERNAL_ERROR
    assert "signal 11" in found.message


def test_a_driver_killed_for_memory(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    one = head(environment, Scripted({DRIVER: -9}))
    monkeypatch.setattr(one.oom, "happened", lambda: True)
    found = one._watch(Ray(), DRIVER)
    assert found.failure_class is FailureClass.HOST_OUT_OF_MEMORY
    assert "2Gi" in found.message
    assert "cluster.head.memory" in found.message


def test_ray_ends_under_the_driver(environment: dict[str, str]) -> None:
    found = head(environment, Scripted({}))._watch(Ray("Ray's gcs_server was killed by SIGKILL"), DRIVER)
    assert found.failure_class is FailureClass.HEAD_LOST
    assert found.message == "Ray's gcs_server was killed by SIGKILL"
    assert found.last_lines == ["port 6379 is taken"]


def test_a_driver_that_follows_its_ray_is_not_the_cause(environment: dict[str, str]) -> None:
    """Ray's library ends the driver when its cluster is gone, maybe before the launcher has looked."""
    found = head(environment, Scripted({DRIVER: 1}))._watch(Ray("Ray's gcs_server was killed by SIGKILL"), DRIVER)
    assert found.failure_class is FailureClass.HEAD_LOST


def test_a_head_that_does_not_come_up_is_started_again(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its driver, which may have joined what is gone."""
    one = head(environment, Scripted({}))
    monkeypatch.setattr(one, "_start_driver", lambda: DRIVER)
    ray = Ray("Ray's node didn't start (1)", "Ray's node didn't start (2)", "for good", runs=False, starts=2)
    found = one._watch(ray, 7)
    assert (found.failure_class, found.message) == (FailureClass.HEAD_LOST, "for good")
    assert ray.ended == 2
    assert "Ray's node didn't start (1); starting it again" in capsys.readouterr().out


def test_a_driver_that_hangs(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    silences = iter([0.0, 599.0, 601.0])
    monkeypatch.setattr(heads, "silence", lambda path: next(silences))
    one = head(environment, Scripted({}))
    one.log_file.write_text("step 100\n")
    found = one._watch(Ray(), DRIVER)
    assert found.failure_class is FailureClass.STALLED
    assert "600 s" in found.message
    assert found.last_lines == ["step 100"]


def test_a_driver_that_hangs_while_it_stops_has_its_grace(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "silence", lambda path: 601.0)
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(heads, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    found = head(environment, Deaf({}, stop=True))._watch(Ray(), DRIVER)
    assert found.outcome is Outcome.STOPPED
    assert "no time left" in found.message


def test_the_heartbeat(tmp_path: Path) -> None:
    file = tmp_path / "heartbeat"
    assert silence(file) == 0, "a start may take its time"
    file.write_text("")
    assert silence(file) == 0, "a write that is under way"
    file.write_text(str(time.monotonic() - 50))
    assert 50 <= silence(file) < 80
    beat(file)
    while silence(file) >= 50:
        pass


def test_told_to_end_before_the_driver_could_listen(environment: dict[str, str]) -> None:
    children = Scripted({}, stop=True)
    found = head(environment, children)._watch(Ray(), DRIVER)
    assert found.outcome is Outcome.STOPPED
    assert children.sent == [signal.SIGTERM]


def test_what_the_driver_is_told(environment: dict[str, str], job: TrainingJob) -> None:
    one = head(environment, Scripted({}))
    settings = one.driver_settings()
    assert settings.heartbeat_file == str(one.heartbeat), "where the launcher looks"
    assert (settings.attempt, settings.workers, settings.storage_uri) == (3, 2, "s3://bucket/prefix")
    assert settings.progress_url == "https://operator/v1/progress"
    assert settings.progress_ca == "", "an empty file is no CA"


def worker(environment: dict[str, str], children: Children, listens: bool, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr(workers.commands, "is_listening", lambda host, port, timeout=1.0: listens)
    monkeypatch.setattr(workers, "HEAD_GONE_SECONDS", 1.5)
    return Worker(Pod.read(environment), children)


def test_a_worker_ends_when_the_head_is_gone(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = worker(environment, Scripted({}), False, monkeypatch)._stay(Ray(), "127.0.0.1")
    assert found is not None
    assert found.failure_class is FailureClass.HEAD_LOST


def test_a_worker_joins_again(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node that ran and ended always, one that didn't come up a few times."""
    one = worker(environment, Scripted({}), True, monkeypatch)
    ray = Ray("Ray's raylet was killed by SIGKILL", "Ray's node didn't start", starts=1)
    plain = ray.start

    def start() -> None:
        plain()
        ray.runs = False

    monkeypatch.setattr(ray, "start", start)
    found = one._stay(ray, "127.0.0.1")
    assert (found.failure_class, found.message) == (FailureClass.WORKER_LOST, "Ray's node didn't start")
    assert found.pod == "digits-3-w-1"
    assert "Ray's raylet was killed by SIGKILL; joining again" in capsys.readouterr().out


def test_a_worker_out_of_memory(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    one = worker(environment, Scripted({}), True, monkeypatch)
    monkeypatch.setattr(one.oom, "happened", lambda: True)
    found = one._stay(Ray(), "127.0.0.1")
    assert found is not None
    assert found.failure_class is FailureClass.HOST_OUT_OF_MEMORY
    assert "worker 1" in found.message
    assert "2Gi" in found.message
    assert found.pod == "digits-3-w-1"


def test_a_worker_told_to_end_asks_for_a_checkpoint(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def ask(address: tuple[str, int], token: str, message: Leaving, timeout: float) -> object:
        asked.append((address, message.pod))
        return Left(saved=True)

    monkeypatch.setattr(workers, "ask", ask)
    found = worker(environment, Scripted({}, stop=True), True, monkeypatch)._stay(Ray(), "10.0.0.1")
    assert found is not None
    assert found.outcome is Outcome.STOPPED
    assert "after a checkpoint" in found.message
    assert asked == [(("10.0.0.1", names.PORT_CONTROL), "digits-3-w-1")]
