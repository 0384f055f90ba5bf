"""What the head makes of the ends of its driver and its Ray node."""

from __future__ import annotations

import itertools
import signal
from types import SimpleNamespace

import pytest
from trainmaster_api import names
from trainmaster_api.messages import ExitMessage, Outcome
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.job import TrainingJob
from trainmaster_api.types import parse_quantity
from trainmaster_trainer.launcher import head as heads
from trainmaster_trainer.launcher.head import Head
from trainmaster_trainer.launcher.identity import Pod
from trainmaster_trainer.processes import Children

from .fakes import DRIVER, Deaf, Ray, Scripted


def head(environment: dict[str, str], children: Children) -> Head:
    found = Head(Pod.read({**environment, names.ENV_ROLE: "head"}), children)
    found.log_file.write_bytes(b"")
    found._log = found.log_file.open("rb")
    return found


def test_head_result_is_the_driver_s(environment: dict[str, str]) -> None:
    one = head(environment, Scripted({DRIVER: 0}))
    one.result_file.write_text(ExitMessage(outcome=Outcome.COMPLETE, message="done").encode())
    assert one._watch(Ray(), DRIVER).message == "done"


def test_head_driver_dies_without_a_word(environment: dict[str, str]) -> None:
    found = head(environment, Scripted({DRIVER: -11}))._watch(Ray(), DRIVER)
    assert found.failure_class is FailureClass.INTERNAL_ERROR
    assert "signal 11" in found.message


def test_head_driver_killed_for_memory(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    one = head(environment, Scripted({DRIVER: -9}))
    monkeypatch.setattr(one.oom, "happened", lambda: True)
    found = one._watch(Ray(), DRIVER)
    assert found.failure_class is FailureClass.HOST_OUT_OF_MEMORY
    assert "2Gi" in found.message
    assert "cluster.head.memory" in found.message


def test_head_ray_ends_under_the_driver(environment: dict[str, str]) -> None:
    found = head(environment, Scripted({}))._watch(Ray("Ray's gcs_server was killed by SIGKILL"), DRIVER)
    assert found.failure_class is FailureClass.HEAD_LOST
    assert found.message == "Ray's gcs_server was killed by SIGKILL"
    assert found.last_lines == ["port 6379 is taken"]


def test_head_driver_that_follows_its_ray_is_not_the_cause(environment: dict[str, str]) -> None:
    """Ray's library ends the driver when its cluster is gone, maybe before the launcher has looked."""
    found = head(environment, Scripted({DRIVER: 1}))._watch(Ray("Ray's gcs_server was killed by SIGKILL"), DRIVER)
    assert found.failure_class is FailureClass.HEAD_LOST


def test_head_ray_that_does_not_come_up_is_started_again(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its driver, which may have joined what is gone."""
    one = head(environment, Scripted({}))
    monkeypatch.setattr(one, "_start_driver", lambda: DRIVER)
    ray = Ray("Ray's node didn't start (1)", "Ray's node didn't start (2)", "for good", runs=False, starts=2)
    found = one._watch(ray, 7)
    assert (found.failure_class, found.message) == (FailureClass.HEAD_LOST, "for good")
    assert ray.ended == 2
    assert "Ray's node didn't start (1); restarting it" in capsys.readouterr().out


def test_head_driver_hangs(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    silences = iter([0.0, 599.0, 601.0])
    monkeypatch.setattr(heads, "silence", lambda path: next(silences))
    one = head(environment, Scripted({}))
    one.log_file.write_text("step 100\n")
    found = one._watch(Ray(), DRIVER)
    assert found.failure_class is FailureClass.STALLED
    assert "600 s" in found.message
    assert found.last_lines == ["step 100"]


def test_head_driver_hangs_while_it_stops(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "silence", lambda path: 601.0)
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(heads, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    found = head(environment, Deaf({}, stop=True))._watch(Ray(), DRIVER)
    assert found.outcome is Outcome.STOPPED
    assert "no time left" in found.message


def test_head_told_to_end_before_the_driver_could_listen(environment: dict[str, str]) -> None:
    children = Scripted({}, stop=True)
    found = head(environment, children)._watch(Ray(), DRIVER)
    assert found.outcome is Outcome.STOPPED
    assert children.sent == [signal.SIGTERM]


def test_head_settings_of_the_driver(environment: dict[str, str], job: TrainingJob) -> None:
    one = head(environment, Scripted({}))
    settings = one.driver_settings()
    assert settings.heartbeat_file == str(one.heartbeat), "where the launcher looks"
    assert (settings.attempt, settings.storage_uri) == (3, "s3://bucket/prefix")
    assert settings.progress_url == "https://operator/v1/progress"
    assert settings.progress_ca == "", "an empty file is no CA"
    assert settings.worker_cpus == float(parse_quantity(job.spec.cluster.workers.cpus))
