"""environment.json: what attempts were made with, and what is said where they differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.git_state import GitState
from trainmaster_api.record import AttemptRecord, CodeRecord, EnvironmentRecord
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.driver.environment import Environment, appended, of_attempt, unequal
from trainmaster_trainer.ipc.messages import Surroundings
from trainmaster_trainer.ipc.settings import DriverSettings
from trainmaster_trainer.storage.store import Store

FIRST = {"numpy": "2.4.0", "torch": "2.13.0"}


def settings(attempt: int = 1, **more: Any) -> DriverSettings:
    names = ("job_file", "storage_uri", "base_dir", "scratch", "result_file", "token_file")
    given: dict[str, Any] = {**dict.fromkeys(names, ""), **more}
    return DriverSettings(attempt=attempt, **given)


def record(attempt: int, packages: dict[str, str] | None = None) -> AttemptRecord:
    return AttemptRecord(attempt=attempt, time="t", code=CodeRecord(), world_size=1, packages=packages)


def of_image(job: TrainingJob, image: str | None, code: dict[str, Any] | None = None) -> TrainingJob:
    document = job.wire()
    document["spec"]["cluster"] |= {"image": image, "workers": {**document["spec"]["cluster"]["workers"], "count": 2}}
    if code is not None:
        document["spec"]["training"]["code"] = code
    return TrainingJob.model_validate(document)


def test_record_of_an_attempt(job: TrainingJob) -> None:
    digest = "sha256:" + "c" * 64
    pods = of_image(job, f"registry.example/trainer:1@{digest}")
    ranks = {
        0: Surroundings(python="3.11.7", platform="Linux", packages=FIRST, device="H200"),
        1: Surroundings(packages={"numpy": "2.4.1", "rich": "14.0"}, device="A10"),
    }
    git = GitState(commit="a" * 40, dirty=True, untracked=["b.py"])
    told = settings(2, code_sha256="d" * 64, ray_address="10.0.0.1:6379")
    found = of_attempt(told, pods, "t", git, "code.diff", ranks)
    assert found == AttemptRecord(
        attempt=2, time="t", world_size=2, image=f"registry.example/trainer:1@{digest}", image_digest=digest,
        code=CodeRecord(sha256="d" * 64, commit="a" * 40, dirty=True, untracked=["b.py"], diff="code.diff"),
        python="3.11.7", platform="Linux", devices=["H200", "A10"], packages=FIRST,
        other_packages={"1": {"numpy": "2.4.1", "rich": "14.0", "torch": ""}},
    )  # fmt: skip
    assert unequal(found) == [
        "rank 1 has other packages than rank 0: numpy 2.4.0 -> 2.4.1, rich none -> 14.0, torch 2.13.0 -> none; use one "
        "image for all workers"
    ]
    on_a_laptop = of_attempt(settings(), of_image(job, "trainer:1"), "t", None, None, {})
    assert (on_a_laptop.image, on_a_laptop.code, on_a_laptop.packages) == (None, CodeRecord(), None)


def test_code_of_a_repository_or_an_image_has_no_archive(job: TrainingJob) -> None:
    by_git = of_image(job, None, {"git": {"url": "https://git.example/a", "commit": "e" * 40}})
    assert of_attempt(settings(), by_git, "t", None, None, {}).code == CodeRecord(commit="e" * 40, dirty=False)
    in_image = of_image(job, None, {"image": "/app"})
    assert of_attempt(settings(), in_image, "t", None, None, {}).code == CodeRecord(image_folder="/app")


def test_attempts_are_appended() -> None:
    known, said = appended(EnvironmentRecord(), record(1, FIRST))
    assert said == []
    known, said = appended(known, record(2, FIRST))
    assert said == []
    assert [each.packages for each in known.attempts] == [FIRST, None], "the same ones are written once"
    known, said = appended(known, record(3, {"numpy": "2.4.1", "torch": "2.13.0"}))
    assert said == [
        "attempt 3 has other packages than attempt 1: numpy 2.4.0 -> 2.4.1; the run may not continue as it would have"
    ]
    known, _ = appended(known, record(2))  # late, and again
    assert [each.attempt for each in known.attempts] == [1, 2, 3]


def test_many_changes_are_counted() -> None:
    known = EnvironmentRecord(attempts=[record(1, {f"p{n:02}": "1" for n in range(13)})])
    ((sentence,)) = appended(known, record(2, {f"p{n:02}": "2" for n in range(13)}))[1]
    assert "p09 1 -> 2, 3 more;" in sentence


class World:
    """Attempts of one run."""

    def __init__(self, job: TrainingJob, folder: Path) -> None:
        self.job, self.run, self.warned = of_image(job, None), Store(str(folder / "run")), list[str]()

    def attempt(self, number: int, ranks: dict[int, list[Surroundings]], **more: Any) -> AttemptRecord:
        made = Environment(settings(number, **more), self.job, self.run, self.warned.append)
        made.begin()
        assert made._thread is not None
        made._thread.join()
        for rank, messages in ranks.items():
            for message in messages:
                made.take(rank, message)
        made.finish()
        return self.record().attempts[-1]

    def record(self) -> EnvironmentRecord:
        return EnvironmentRecord.model_validate_json(self.run.get("environment.json") or b"")


@pytest.fixture
def world(job: TrainingJob, tmp_path: Path) -> World:
    return World(job, tmp_path)


def ranks(packages: dict[str, str]) -> dict[int, list[Surroundings]]:
    return {rank: [Surroundings(device=f"gpu {rank}"), Surroundings(packages=packages)] for rank in (1, 0)}


def test_two_attempts_with_a_changed_package(world: World) -> None:
    assert world.attempt(1, ranks(FIRST)).devices == ["gpu 0", "gpu 1"]
    assert world.warned == []
    world.attempt(2, ranks({**FIRST, "torch": "2.12.0"}))
    assert [each.packages for each in world.record().attempts] == [FIRST, {**FIRST, "torch": "2.12.0"}]
    assert [sentence.partition(":")[0] for sentence in world.warned] == ["attempt 2 has other packages than attempt 1"]


def test_attempt_that_ends_early_has_what_is_known(world: World) -> None:
    assert world.attempt(1, {}).packages is None
    found = world.attempt(2, {0: [Surroundings(device="cpu")]})
    assert found.packages is not None
    assert "pydantic" in found.packages, "this process's"
    assert found.devices == ["cpu"]


def test_diff_is_kept_beside_it(world: World, tmp_path: Path) -> None:
    (tmp_path / "git").write_text(GitState(commit="a" * 40, dirty=True, diff="-a\n+b\n").encode())
    assert world.attempt(1, {}, git_file=str(tmp_path / "git")).code.diff == "code.diff"
    assert world.attempt(2, {}, git_file=str(tmp_path / "git")).code.diff == "code.diff"
    (tmp_path / "git").write_text(GitState(commit="b" * 40, dirty=True, diff="-a\n+c\n").encode())
    assert world.attempt(3, {}, git_file=str(tmp_path / "git")).code.diff == "a3-code.diff"
    assert (world.run.get("code.diff"), world.run.get("a3-code.diff")) == (b"-a\n+b\n", b"-a\n+c\n")
    (tmp_path / "git").write_text("no state")
    assert world.attempt(4, {}, git_file=str(tmp_path / "git")).code == CodeRecord()


def test_record_that_cannot_be_read_is_begun_again(world: World) -> None:
    world.run.put("environment.json", b'{"attempts": 1}')
    world.attempt(1, ranks(FIRST))
    assert json.loads(world.run.get("environment.json") or b"")["attempts"][0]["packages"] == FIRST
