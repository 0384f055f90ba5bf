"""Names and what they make: one way to look them up for every kind of part.

What we ship is found by where it is: a kind of part has a package, each module in it is an entry, and the module's
name is the entry's. So adding one is adding a file. What others ship is found as an entry point of an installed
package; such names contain a `/`, so ours can be checked strictly. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from trainmaster_api.references import did_you_mean

from .errors import ConfigurationError
from .references import USER_PACKAGES

T = TypeVar("T")


class Registry(Generic[T]):
    """The entries of one kind.

    Args:
        kind: Word for it in sentences: `model`.
        package: Package whose modules are our entries; `base` and names with an underscore in front are none.
        group: Entry point group of other packages.
        attribute: What is taken from an entry's module.
    """

    def __init__(self, kind: str, package: str, group: str, attribute: str = "build") -> None:
        self.kind, self.package, self.group, self.attribute = kind, package, group, attribute

    @cached_property
    def names(self) -> list[str]:
        """Names that we ship, sorted."""
        paths = importlib.import_module(self.package).__path__
        return sorted(m.name for m in pkgutil.iter_modules(paths) if m.name != "base" and not m.name.startswith("_"))

    @property
    def installed(self) -> dict[str, EntryPoint]:
        """Entry points of installed packages, by name."""
        return {point.name: point for point in entry_points(group=self.group)}

    def get(self, name: str, path: str) -> T:
        """Return the entry of a name.

        Args:
            name: One of ours, or `package/name` of an entry point.
            path: Where the name was given: `model.name`.

        Raises:
            ConfigurationError: There is none; with the nearest name.
        """
        found: Any
        if name in self.names:
            found = getattr(importlib.import_module(f"{self.package}.{name}"), self.attribute)
        elif (point := self.installed.get(name)) is not None:
            USER_PACKAGES.add(point.module.partition(".")[0])
            try:
                found = point.load()
            except AttributeError as error:
                raise ConfigurationError(
                    f"{path}: the entry point {name} = {point.value} can't be loaded: {error}"
                ) from None
        else:
            known = sorted([*self.names, *self.installed])
            raise ConfigurationError(
                f"{path}: unknown {self.kind} {name!r}; known are {', '.join(known)}{did_you_mean(name, known)} "
                f"A name with a / is an entry point {self.group} of an installed package"
            )
        return found  # type: ignore[no-any-return]

    def is_shipped(self, name: str | None) -> bool:
        """Return whether a name is one of ours."""
        return name in self.names
