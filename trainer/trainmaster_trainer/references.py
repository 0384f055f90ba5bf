"""References to code, `package.module:Name`: found, checked against the arguments of the spec, called.

What can be said before the user's code runs is a `ConfigurationError` with the path in the spec and the nearest name.
An exception from inside that code is left as it is: the traceback says whose it is (failures.py).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .errors import ConfigurationError, did_you_mean

USER_PACKAGES: set[str] = set()
"""Top-level packages that a reference of this process named: what fails inside them is the user's."""
FOLDERS: list[Path] = []
"""Folders of jobs in which references find modules."""


def use_folder(folder: Path) -> None:
    """Let references find modules in the job's folder.

    It comes last on sys.path, so that a file of the user's never takes the place of a module that somebody else imports
    (a `queue.py` beside the job must not reach torch). Called in a rank only.
    """
    folder = folder.absolute()
    if folder not in FOLDERS:
        FOLDERS.append(folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()


def is_in_job_folder(filename: str) -> bool:
    """Return whether a source file is in a folder that references were resolved in."""
    return any(Path(filename).is_relative_to(folder) for folder in FOLDERS)


def resolve(reference: str, path: str) -> Any:
    """Return the object behind a reference.

    Args:
        reference: `package.module:Name`.
        path: Where it was given: `model.class`.

    Raises:
        ConfigurationError: There is no such module or name, or another module hides the one in the job's folder.
    """
    module_name, _, name = reference.partition(":")
    top = module_name.partition(".")[0]
    _require_not_shadowed(top, reference, path)
    USER_PACKAGES.add(top)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there; what it imports is not
        where = ", ".join(str(folder) for folder in FOLDERS) or "the job's folder"
        raise ConfigurationError(
            f"{path} {reference}: there is no module {error.name!r}{did_you_mean(error.name, _modules())} in {where} "
            "or among the installed packages"
        ) from None
    for part in name.split("."):
        if not hasattr(found, part):
            known = [each for each in dir(found) if not each.startswith("_")]
            raise ConfigurationError(f"{path} {reference}: {module_name} has no {part!r}{did_you_mean(part, known)}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigurationError(f"{path} {reference}: is a {type(found).__name__}, and can't be called")
    return found


def call(
    target: Callable[..., Any], label: str, path: str, args: Mapping[str, Any], *first: Any, **offered: Any
) -> Any:
    """Call a user's class or function with the arguments of the spec.

    Args:
        target: What is called.
        label: Its reference or name, for sentences.
        path: The part in the spec: `model`.
        args: `args` of the part.
        first: Positional arguments that we give.
        offered: Arguments that are given where the signature names them and `args` doesn't.

    Raises:
        ConfigurationError: The arguments don't fit the signature; all problems at once.
    """
    return target(*first, **bound(target, label, path, args, *first, **offered))


def bound(
    target: Callable[..., Any], label: str, path: str, args: Mapping[str, Any], *first: Any, **offered: Any
) -> dict[str, Any]:
    """Return the keyword arguments of `call`; checked, but not called."""
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return dict(args)  # written in C without a signature: the call will say what is wrong
    parameters = list(signature.parameters.values())[len(first) :]
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    given = {name: value for name, value in offered.items() if name in named} | dict(args)
    problems = [
        f"{path}.args.{name}: {label} has no such argument{did_you_mean(name, named)}"
        for name in given
        if name not in named and not takes_any
    ]
    missing = [name for name, p in named.items() if p.default is p.empty and name not in given]
    if missing:
        problems.append(f"{path}.args: {label} needs {', '.join(missing)}")
    if not problems:
        try:
            signature.bind(*first, **given)
        except TypeError as error:
            problems.append(f"{path}.args: {label}: {error}")
    if problems:
        own = [name for name in named if name not in offered]
        raise ConfigurationError("; ".join(problems) + f". Its arguments: {', '.join(own) or 'none'}")
    return given


def _require_not_shadowed(top: str, reference: str, path: str) -> None:
    """Refuse a module of the job's folder in whose place Python would import another one."""
    for folder in FOLDERS:
        own = next((each for each in (folder / f"{top}.py", folder / top) if each.exists()), None)
        if own is None or (own.is_dir() and not any(own.rglob("*.py"))):
            continue
        found = importlib.util.find_spec(top)
        origins = [found.origin, *(found.submodule_search_locations or [])] if found else []
        if not any(origin and Path(origin).is_relative_to(folder) for origin in origins):
            other = origins[0] if origins and origins[0] else "a module of Python's own"
            raise ConfigurationError(
                f"{path} {reference}: {own} is hidden by the installed module {top} ({other}); give it another name"
            )


def _modules() -> list[str]:
    """Return the modules of the job's folders, dotted, for the nearest name."""
    found = set()
    for folder in FOLDERS:
        for file in [*folder.glob("*.py"), *folder.glob("*/*.py"), *folder.glob("*/*/*.py")]:
            parts = file.relative_to(folder).with_suffix("").parts
            found |= {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return sorted(found)
