"""Installing a lock file with the real uv, from wheels that the test writes; no network."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api import names
from trainmaster_api.archive import remove
from trainmaster_trainer.code import install as module
from trainmaster_trainer.code.uv import settings
from trainmaster_trainer.errors import CodeError, CodeUnavailable
from trainmaster_trainer.rank.packages import use_packages

from .world import World, wheel


def test_packages_come_from_wheels(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.lock(wheel(world.wheels, "tinyone", "1.0"), wheel(world.wheels, "tinytwo", "2.0", "WIDTH = 2\n"))
    found = world.install()
    assert found is not None
    assert (found / "tinytwo.py").read_text() == "WIDTH = 2\n"
    assert capsys.readouterr().out == "installing 2 packages of lock.txt\n"
    assert not os.access(found, os.W_OK) or os.getuid() == 0
    assert found.stat().st_mode & 0o222 == 0, "read-only"
    inode = found.stat().st_ino
    remove(world.wheels)
    world.wheels.mkdir()
    again = world.install()
    assert again == found
    assert again.stat().st_ino == inode, "made once"
    assert capsys.readouterr().out == ""


def test_another_lock_is_another_folder(world: World) -> None:
    first, second = wheel(world.wheels, "tinyone", "1.0"), wheel(world.wheels, "tinyone", "1.1")
    world.lock(first)
    one = world.install()
    world.lock("# a comment alone changes nothing\n", first)
    assert world.install() == one
    world.lock(second)
    assert world.install() != one
    assert len(world.built()) == 2


def test_what_the_image_has_needs_no_folder(world: World) -> None:
    import pydantic

    world.lock(f"pydantic=={pydantic.VERSION} --hash=sha256:{'0' * 64}\n")
    assert world.install() is None
    world.lock(f"pydantic==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(CodeError) as error:
        world.install()
    assert error.value.message.splitlines() == [
        "spec.training.code.requirements: lock.txt doesn't fit this image; lock again with the versions of the image, "
        "or without these packages:",
        f"  line 1: pydantic is 1.0, and Trainmaster in this image has {pydantic.VERSION}",
    ]


def test_missing_lock_file_is_final(world: World) -> None:
    with pytest.raises(CodeError, match=r"there is no file lock\.txt in the code"):
        world.install()
    (world.code / "lock.txt").symlink_to("/etc/hostname")
    with pytest.raises(CodeError, match=r"there is no file lock\.txt in the code"):
        world.install()


def test_bad_lines_are_named(world: World) -> None:
    world.lock("-e .\n", "numpy\n")
    with pytest.raises(CodeError) as error:
        world.install()
    assert [line[:9] for line in error.value.message.splitlines()[1:]] == ["  line 1:", "  line 2:"]


def test_another_checksum_is_refused(world: World) -> None:
    line = wheel(world.wheels, "tinyone", "1.0")
    world.lock(line)
    wheel(world.wheels, "tinyone", "1.0", "import os\n")
    with pytest.raises(CodeError) as error:
        world.install()
    changed = hashlib.sha256((world.wheels / "tinyone-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    expected = (
        f"the file of tinyone==1.0 from code.wheels (wheels) has the checksum sha256:{changed}, which isn't in the"
    )
    assert expected in error.value.message
    assert world.built() == [], "nothing is left of it"


@pytest.mark.parametrize("absent", ["tinytwo==1.0", "tinyone==1.1"])
def test_missing_wheels_are_named(world: World, absent: str) -> None:
    wheel(world.wheels, "tinyone", "1.0")
    world.lock(f"{absent} --hash=sha256:{'0' * 64}\n")
    with pytest.raises(CodeError) as error:
        world.install()
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    name = absent if "tinyone" in absent else "tinytwo"
    assert f"code.wheels (wheels) has no wheel of {name} for {python}" in error.value.message
    with pytest.raises(CodeError, match="there is no folder other in the code"):
        world.install("other")


def test_an_index_that_is_away_may_pass(world: World) -> None:
    world.lock(f"tinyone==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(CodeUnavailable) as error:
        world.install(None, PIP_INDEX_URL="http://me:secret@127.0.0.1:9/simple", UV_HTTP_RETRIES="0")
    expected = "tinyone==1.0 can't be fetched from the index http://127.0.0.1:9/simple (Failed to fetch: "
    assert expected in error.value.message, "the one of pip's setting"
    assert "secret" not in error.value.message
    assert "bring the wheels with code.wheels" in error.value.message


def test_wheels_come_from_storage(world: World, tmp_path: Path) -> None:
    world.lock(wheel(tmp_path / "stored", "tinyone", "1.0"))
    found = world.install(str(tmp_path / "stored"))
    assert found is not None
    assert (found / "tinyone.py").exists()


def test_of_an_object_storage_only_what_is_named_is_fetched(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainmaster_trainer.storage import store

    world.lock(wheel(tmp_path / "stored", "tinyone", "1.0"))
    wheel(tmp_path / "stored", "tinytwo", "1.0")
    fetched: list[str] = []

    class Recorded(store.Store):
        def download(self, path: str, target: Path) -> None:
            fetched.append(path)
            super().download(path, target)

    asked: list[Any] = []

    def opened(*given: Any) -> store.Store:
        asked.append(given)
        return Recorded(str(tmp_path / "stored"))

    monkeypatch.setattr(store, "open_store", opened)
    assert world.install("s3://bucket/wheels") is not None
    assert fetched == ["tinyone-1.0-py3-none-any.whl"]
    assert asked[0][0] == "s3://bucket/wheels"


def test_no_uv_is_said(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    world.lock(wheel(world.wheels, "tinyone", "1.0"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(CodeError, match="needs the program uv, which isn't here; install it"):
        world.install(PATH=str(tmp_path))


def test_a_killed_builder_leaves_nothing_that_counts(world: World) -> None:
    world.lock(wheel(world.wheels, "tinyone", "1.0"))
    found = world.install()
    assert found is not None
    key = found.parent.name
    remove(found.parent)
    (found / "half").mkdir(parents=True)
    again = world.install()
    assert again == found
    assert (found / "tinyone.py").exists()
    assert not (found / "half").exists()
    assert world.built() == [key], "what was left is gone"


def test_one_builds_and_the_others_wait(world: World) -> None:
    world.lock(wheel(world.wheels, "tinyone", "1.0"))
    own = {"image": str(world.code), "requirements": "lock.txt", "wheels": "wheels"}
    code = (
        "import os, pathlib; from trainmaster_api.spec.code import Code;"
        "from trainmaster_api.spec.storage import Storage;"
        "from trainmaster_trainer.code.install import install;"
        f"code = Code.model_validate({own!r});"
        f"print(install(code, pathlib.Path({str(world.code)!r}), Storage(), os.environ).path)"
    )
    environment = {**os.environ, **world.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    printed = [process.communicate()[0].splitlines() for process in started]
    said = [[line for line in lines if not line.startswith("waiting for another process")] for lines in printed]
    assert len({lines[-1] for lines in said}) == 1
    assert sorted(len(lines) for lines in said) == [1, 1, 2], "one says that it installs"
    assert Path(said[0][-1], "site-packages", "tinyone.py").exists()


def test_the_lock_is_held_while_building(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.lock(wheel(world.wheels, "tinyone", "1.0"))
    held: list[bool] = []

    def looked(*given: Any) -> None:
        (file,) = (world.cache / "packages").glob("*.lock")
        with file.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(True)
        (given[-1] / "packages.json").touch()

    monkeypatch.setattr(module, "_build", looked)
    world.install()
    assert held == [True]


def test_settings_of_pip_and_uv() -> None:
    given = {"PIP_INDEX_URL": "a", "PIP_EXTRA_INDEX_URL": "b", "UV_TARGET": "/x", "UV_INDEX_TEAM_PASSWORD": "p"}
    found = settings(given)
    assert (found["UV_DEFAULT_INDEX"], found["UV_INDEX"], found["UV_INDEX_TEAM_PASSWORD"]) == ("a", "b", "p")
    assert "UV_TARGET" not in found
    assert "UV_DEFAULT_INDEX" not in settings({"PIP_INDEX_URL": "a", "UV_INDEX_URL": "c"}), "uv's own setting wins"
    assert settings({"UV_HTTP_TIMEOUT": "7"})["UV_HTTP_TIMEOUT"] == "7"


def test_a_rank_finds_them_before_the_image_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ["/usr/lib/python3.11", "/opt/venv/lib/python3.11/site-packages", "/opt/trainmaster"]
    monkeypatch.setattr(sys, "path", list(path))
    environment = {names.ENV_PACKAGES: str(tmp_path), "PATH": "/bin"}
    use_packages(environment)
    assert sys.path == [path[0], str(tmp_path), *path[1:]]
    assert (environment["PYTHONPATH"], environment["PATH"]) == (str(tmp_path), f"{tmp_path}/bin:/bin")
    use_packages({})
    assert len(sys.path) == 4


def test_a_process_of_a_rank_imports_them(world: World) -> None:
    world.lock(wheel(world.wheels, "tinyone", "1.0", "WIDTH = 41\n"))
    found = world.install()
    code = (
        "from trainmaster_trainer.rank.packages import use_packages; use_packages(); import subprocess, sys, tinyone;"
        "child = [sys.executable, '-c', 'import tinyone; print(tinyone.WIDTH + 1)'];"
        "print(tinyone.WIDTH, flush=True); subprocess.run(child, check=True)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), names.ENV_PACKAGES: str(found)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["41", "42"]
