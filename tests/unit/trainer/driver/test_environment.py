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


A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


@pytest.mark.parametrize(
    ("name", "images", "digest"),
    [
        ("trainer:1", [f"registry.example/trainer@{A}"], A),
        ("trainer:1", [f"registry.example/trainer@{A}", f"mirror.example/trainer@{A}"], A),
        ("trainer:1", [A], None),
        ("trainer:1", [f"registry.example/trainer@{A}", A], None),
        ("trainer:1", [f"registry.example/trainer@{A}", f"registry.example/trainer@{B}"], None),
        (f"trainer:1@{C}", [f"registry.example/trainer@{A}"], C),
        ("trainer:1", [], None),
    ],
    ids=[
        "pulled",
        "from two registries",
        "loaded",
        "loaded on one node",
        "a tag that was moved",
        "by digest",
        "unknown",
    ],
)
def test_digest_is_what_the_kubelets_report(job: TrainingJob, name: str, images: list[str], digest: str | None) -> None:
    told = settings(ray_address="10.0.0.1:6379")
    found = of_attempt(told, of_image(job, name), "t", None, None, {}, images)
    assert (found.image, found.image_digest, found.image_ids) == (name, digest, images)


def of_images(attempt: int, *images: str, name: str = "trainer:1") -> AttemptRecord:
    return record(attempt).model_copy(update={"image": name, "image_ids": list(images)})


def test_a_tag_that_was_moved_is_said() -> None:
    known, said = appended(EnvironmentRecord(), of_images(1, f"a.example/trainer@{A}"))
    assert said == []
    known, said = appended(known, of_images(2))
    assert said == []
    assert appended(known, of_images(3, f"b.example/trainer@{A}"))[1] == [], "another registry has the same image"
    assert appended(known, of_images(3, B))[1] == [], "what is loaded on a node has another kind of checksum"
    assert appended(known, of_images(3, f"a.example/trainer@{B}", name="trainer:2"))[1] == [], "it has another name"
    assert appended(known, of_images(3, f"a.example/trainer@{B}"))[1] == [
        f"attempt 3 runs another image as trainer:1 than attempt 1: {B}, not {A}; the run may not continue as it would "
        "have: name the image by its digest (NAME@sha256:...)"
    ]
    assert unequal(of_images(1, f"a.example/trainer@{A}", f"b.example/trainer@{A}", B)) == []
    assert unequal(of_images(1, B, C)) == [
        f"the pods of attempt 1 run different images as trainer:1: {B} and {C}; name the image by its digest "
        "(NAME@sha256:...)"
    ]


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


def test_images_are_recorded_as_they_become_known(world: World) -> None:
    world.job = of_image(world.job, "trainer:1")
    told = settings(1, ray_address="10.0.0.1:6379")
    made = Environment(told, world.job, world.run, world.warned.append)
    made.take_images([f"a.example/trainer@{A}"])
    assert world.run.get("environment.json") is None, "the storage isn't claimed yet"
    made.begin()
    made.finish()
    assert world.record().attempts[-1].image_digest == A
    written = world.run.get_versioned("environment.json")
    made.take_images([f"a.example/trainer@{A}"])
    made.finish()
    assert world.run.get_versioned("environment.json") == written, "nothing new"
    made.take_images([f"a.example/trainer@{B}"])
    made.finish()
    assert world.record().attempts[-1].image_ids == [f"a.example/trainer@{A}", f"a.example/trainer@{B}"]
    assert [sentence[:31] for sentence in world.warned] == ["the pods of attempt 1 run diffe"]
    for rank in (0, 1):
        made.take(rank, Surroundings(packages={**FIRST, "rich": str(rank)}))
    made.finish()
    assert len(world.warned) == 2, "what was said before doesn't hide what is found later, and is said once"


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
