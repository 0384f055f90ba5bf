"""The folder of installed packages is kept below its limit: the least recently used go, and never what is in use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from trainmaster_trainer.code.installed import PACKAGES, PackageFolder, hold
from trainmaster_trainer.data.entries import size_of
from trainmaster_trainer.errors import CodeError

from .world import World, wheel

NAMES = ("tinyone", "tinytwo", "tinythree")
CONTENT = "# " + "x" * 100_000 + "\n"  # so that what else an entry has doesn't count


class Cache:
    """Packages that are installed one after another, each in an entry of its own."""

    def __init__(self, world: World) -> None:
        self.world, self.root = world, world.cache / PACKAGES
        self.lines = {name: wheel(world.wheels, name, "1.0", CONTENT) for name in NAMES}
        self.size = self.limit = 0

    def use(self, name: str) -> Path:
        """Install a package, or use it again; return its entry."""
        self.world.lock(self.lines[name])
        limit = {"TRAINMASTER_PACKAGES_SIZE": str(self.limit)} if self.limit else {}
        found = self.world.install(**limit)
        assert found is not None
        assert (found / f"{name}.py").read_text() == CONTENT
        return found.parent

    def fill(self) -> tuple[Path, Path]:
        """Use the first two, the second one last, and set a limit that leaves room for a half more."""
        one, two = self.use("tinyone"), self.use("tinytwo")
        for seconds, entry in enumerate((one, two), 1):
            os.utime(entry / PackageFolder.done, (seconds, seconds))
        self.limit = int(2.5 * size_of(one))
        return one, two

    def there(self) -> set[Path]:
        return {path for path in self.root.iterdir() if path.is_dir()}


@pytest.fixture
def cache(world: World) -> Cache:
    return Cache(world)


def process(world: World, code: str, *more: str) -> subprocess.Popen[str]:
    """Start a process that runs code with the packages that the lock file names now."""
    own = {"image": str(world.code), "requirements": "lock.txt", "wheels": "wheels"}
    first = (
        "import os, pathlib, signal, sys; from trainmaster_api.spec.code import Code;"
        "from trainmaster_api.spec.storage import Storage;"
        "from trainmaster_trainer.code.install import install;"
        f"code = Code.model_validate({own!r})\n"
        f"def use(): return install(code, pathlib.Path({str(world.code)!r}), Storage(), os.environ)\n"
    )
    environment = {**os.environ, **world.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= dict(each.split("=") for each in more)
    command = [sys.executable, "-c", first + code]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_the_least_recently_used_is_removed(cache: Cache) -> None:
    one, two = cache.fill()
    cache.use("tinyone")
    three = cache.use("tinythree")
    assert cache.there() == {one, three}, "the second was used before the first"
    assert not (cache.root / f"{two.name}.lock").exists()
    assert cache.use("tinytwo") == two, "it is installed again where it is wanted"
    assert cache.there() == {two, three}


def test_what_a_process_uses_is_never_removed(cache: Cache) -> None:
    one, two = cache.fill()
    cache.world.lock(cache.lines["tinyone"])
    user = process(cache.world, "entry = use(); print(entry.path, flush=True); sys.stdin.read()")
    assert user.stdout is not None
    assert user.stdout.readline().strip() == str(one)
    os.utime(one / PackageFolder.done, (0, 0))
    three = cache.use("tinythree")
    assert cache.there() == {one, three}, "the first is older, and in use"
    cache.limit = 1
    held = hold(three / "site-packages")
    assert held is not None
    assert cache.there() == {one, three}
    assert cache.use("tinytwo") == two, "what is in use may be more than the limit"
    assert cache.there() == {one, two, three}
    user.communicate()
    held.close()
    cache.limit = int(1.5 * size_of(one))
    cache.use("tinythree")
    assert cache.there() == {one, two, three}, "nothing is removed but for what is installed"


def test_a_process_that_is_killed_uses_nothing(cache: Cache) -> None:
    one, two = cache.fill()
    cache.world.lock(cache.lines["tinyone"])
    user = process(cache.world, "entry = use(); print(entry.path, flush=True); sys.stdin.read()")
    assert user.stdout is not None
    user.stdout.readline()
    os.utime(one / PackageFolder.done, (0, 0))
    user.kill()
    user.communicate()
    three = cache.use("tinythree")
    assert cache.there() == {two, three}


def test_killed_while_it_removes(cache: Cache) -> None:
    one, two = cache.fill()
    cache.world.lock(cache.lines["tinythree"])
    killed = process(
        cache.world,
        "from trainmaster_api import archive\n"
        "rmtree = archive.shutil.rmtree\n"
        "def half(path, **more):\n"
        f"    if str(path) != {str(one)!r}:\n"
        "        return rmtree(path, **more)\n"
        f"    next(pathlib.Path({str(one)!r}, 'site-packages').glob('*.py')).unlink()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "archive.shutil.rmtree = half\n"
        "use()",
        f"TRAINMASTER_PACKAGES_SIZE={cache.limit}",
    )
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not list(one.glob("site-packages/*.py")), "it was half-way"
    assert hold(one / "site-packages") is None, "what is left isn't taken for complete"
    assert cache.use("tinyone") == one, "and is installed again"
    three = cache.use("tinythree")
    assert cache.there() == {one, three}
    (one / PackageFolder.done).unlink()
    assert cache.use("tinytwo") == two
    assert cache.there() == {two, three}, "the rest of an entry is removed before those that are complete"


def test_folders_that_are_not_ours_stay(cache: Cache) -> None:
    _, two = cache.fill()
    foreign = [cache.root / name for name in ("thesis", "locked", "0" * 32)]
    for folder in foreign:
        folder.mkdir()
        (folder / "thesis.tex").write_text(CONTENT)
        os.utime(folder, (0, 0))
    (cache.root / "locked.lock").touch()
    three = cache.use("tinythree")
    assert cache.there() == {two, three, *foreign}
    assert [(folder / "thesis.tex").read_text() for folder in foreign] == [CONTENT] * 3


def test_packages_are_held_as_long_as_they_are_there(cache: Cache) -> None:
    one, _ = cache.fill()
    held = hold(one / "site-packages")
    assert held is not None
    assert held.path == one
    held.close()
    cache.use("tinytwo")
    cache.limit = 1
    cache.use("tinythree")
    assert hold(one / "site-packages") is None


def test_a_limit_that_is_no_quantity_is_said(cache: Cache) -> None:
    cache.world.lock(cache.lines["tinyone"])
    with pytest.raises(
        CodeError, match=r'^TRAINMASTER_PACKAGES_SIZE is "10 GB"; it must be a quantity of bytes such as'
    ):
        cache.world.install(TRAINMASTER_PACKAGES_SIZE="10 GB")
