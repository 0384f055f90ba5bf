"""What is done to a framework once the user's program has imported it; a program that doesn't use it pays nothing.

`SHIMS` names the module and the function that is called with the session and that module, right after its import.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .session import Session

_LIGHTNING = "trainmaster_trainer.backends.lightning.shim:install"
SHIMS: dict[str, str] = {
    "lightning.pytorch": _LIGHTNING,
    "pytorch_lightning": _LIGHTNING,
    "transformers.trainer": "trainmaster_trainer.backends.transformers.shim:install",
}


class Shims(importlib.abc.MetaPathFinder):
    """Calls the shims of one session, of modules that are imported already and of those that will be."""

    def __init__(self, session: Session, shims: Mapping[str, str] | None = None) -> None:
        self._session = session
        self._waiting = dict(SHIMS if shims is None else shims)

    def start(self) -> None:
        """Look at every import from now on."""
        sys.meta_path.insert(0, self)
        for name in [name for name in self._waiting if name in sys.modules]:
            self.apply(sys.modules[name])

    def stop(self) -> None:
        """Look no longer."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module as the other finders do, with a loader that calls the shim at the end."""
        if fullname not in self._waiting:
            return None
        for finder in [each for each in sys.meta_path if each is not self]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self)
                return spec
        return None

    def apply(self, module: ModuleType) -> None:
        """Call the shim of a module."""
        place, _, name = self._waiting.pop(module.__name__).partition(":")
        getattr(importlib.import_module(place), name)(self._session, module)


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, shims: Shims) -> None:
        self._loader, self._shims = loader, shims

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # the module keeps its own loader: packages read their resources by it
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._shims.apply(module)
