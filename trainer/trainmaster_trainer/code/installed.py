"""The folder of installed packages: an entry for each content, removed by least recent use when it is over its limit.

It is a folder of cache entries like that of tables, by the same locks. What follows from packages is here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from trainmaster_api.types import parse_quantity

from trainmaster_trainer.data.cache_folder import cache_folder, temporary
from trainmaster_trainer.data.entries import Entry, Folder
from trainmaster_trainer.errors import CodeError, CodeUnavailable, TrainingError

from .uv import FIELD

FOLDER = "site-packages"  # what a traceback knows as code that isn't the user's
PACKAGES = "packages"
ENV_SIZE = "TRAINMASTER_PACKAGES_SIZE"
SIZE, TEMPORARY_SIZE = "20Gi", "5Gi"
"""What the folder may take by default, and among temporary files, which in a pod have 20Gi for everything."""
_KEY = re.compile("[0-9a-f]{32}")


class PackageFolder(Folder):
    """Entries with packages. One that is in use is never removed, also where the folder is over its limit by it."""

    done: ClassVar[str] = "packages.json"

    def is_entry(self, path: Path) -> bool:
        """Return whether a folder beside a lock is ours by its name."""
        return _KEY.fullmatch(path.name) is not None

    def used(self, path: Path) -> float:
        """Return when an entry was last used; what a process that was killed has left is of no use."""
        return super().used(path) if (path / self.done).exists() else 0.0

    def unusable(self, error: OSError) -> TrainingError:
        """Return that the folder can't be written."""
        where = error.filename or self.root
        return CodeUnavailable(
            f"{FIELD}: the packages can't be written ({where}: {(error.strerror or str(error)).lower()})"
        )

    def full(self) -> TrainingError:
        """Return that the disk is full."""
        return CodeUnavailable(f"{FIELD}: the disk of {self.root} is full; free space, or set TRAINMASTER_CACHE")

    def waiting(self, words: str) -> str:
        """Return what a process says that waits for another one."""
        return "waiting for another process that installs the same packages"


def package_folder(environment: Mapping[str, str], say: Callable[[str], None]) -> PackageFolder:
    """Return the folder that the environment names.

    Raises:
        CodeError: Its limit is no quantity.
    """
    root = cache_folder(environment) / PACKAGES
    given = environment.get(ENV_SIZE) or (TEMPORARY_SIZE if root.is_relative_to(temporary()) else SIZE)
    try:
        limit = int(parse_quantity(given))
    except ValueError:
        raise CodeError(f'{ENV_SIZE} is "{given}"; it must be a quantity of bytes such as {SIZE}') from None
    return PackageFolder(root, limit, say, PACKAGES)


def packages_of(entry: Entry) -> Path:
    """Return the folder of an entry that Python finds packages in."""
    return entry.path / FOLDER


def hold(packages: Path) -> Entry | None:
    """Keep packages from being removed as long as the entry is there; None: they were removed meanwhile.

    Args:
        packages: As `packages_of` returned it, maybe in another process.
    """
    entry = packages.parent
    return PackageFolder(entry.parent, 0, lambda _: None, PACKAGES).held(entry.name)
