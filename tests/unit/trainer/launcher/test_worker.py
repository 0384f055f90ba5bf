"""When a worker pod stays, joins again, and leaves."""

from __future__ import annotations

import pytest
from trainmaster_api import names
from trainmaster_api.messages import Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_trainer.ipc.messages import Leaving, Left
from trainmaster_trainer.launcher import worker as workers
from trainmaster_trainer.launcher.identity import Pod
from trainmaster_trainer.launcher.worker import Worker
from trainmaster_trainer.processes import Children

from .fakes import Ray, Scripted


def worker(environment: dict[str, str], children: Children, listens: bool, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr(workers.commands, "is_listening", lambda host, port, timeout=1.0: listens)
    monkeypatch.setattr(workers, "HEAD_GONE_SECONDS", 1.5)
    return Worker(Pod.read(environment), children)


def test_worker_ends_when_the_head_is_gone(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = worker(environment, Scripted({}), False, monkeypatch)._stay(Ray(), "127.0.0.1")
    assert found is not None
    assert found.failure_class is FailureClass.HEAD_LOST


def test_worker_joins_again(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node that ran and ended: always; a node whose start failed: a few times."""
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
    assert "Ray's raylet was killed by SIGKILL; rejoining" in capsys.readouterr().out


def test_worker_out_of_memory(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    one = worker(environment, Scripted({}), True, monkeypatch)
    monkeypatch.setattr(one.oom, "happened", lambda: True)
    found = one._stay(Ray(), "127.0.0.1")
    assert found is not None
    assert found.failure_class is FailureClass.HOST_OUT_OF_MEMORY
    assert "worker 1" in found.message
    assert "2Gi" in found.message
    assert found.pod == "digits-3-w-1"


def test_worker_told_to_end_asks_for_a_checkpoint(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
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


class Collector:
    """Takes note of what a launcher wants of its log collector."""

    pid = 17

    def __init__(self) -> None:
        self.told: list[str] = []

    def environment(self) -> dict[str, str]:
        return {"LOGS": "here"}

    def soon(self) -> None:
        self.told.append("soon")

    def end(self) -> None:
        self.told.append("end")


def test_worker_collects_the_output_of_its_ranks(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector is told before the pod is left, and ends after everything that may print."""
    made, logs, node = [], Collector(), Ray()
    monkeypatch.setattr(workers, "CollectorProcess", lambda *_, **asked: made.append(asked) or logs)
    started: list[dict[str, str]] = []

    def start(children: Children, command: object, environment: dict[str, str], *_: object, **__: object) -> Ray:
        started.append(environment)
        return node

    monkeypatch.setattr(workers, "RayNode", start)
    monkeypatch.setattr(workers, "ask", lambda *_: logs.told.append("ask"))
    one = worker(environment, Scripted({}, stop=True), True, monkeypatch)
    monkeypatch.setattr(one, "_wait_for_head", lambda: "10.0.0.1")
    monkeypatch.setattr(node, "end", lambda seconds: logs.told.append("ray"))
    assert one.run().outcome is Outcome.STOPPED
    assert one.children.spared == {17}
    one.close()
    assert logs.told == ["soon", "ask", "ray", "end"]
    assert started[0]["LOGS"] == "here"
    assert made[0]["path"] == "logs/a3/digits-3-w-1.log"
    assert made[0]["storage_uri"] == "s3://bucket/prefix/default/digits/0f3c9a1b"
