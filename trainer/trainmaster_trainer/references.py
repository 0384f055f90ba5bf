"""References to code in a rank: resolved and checked as the contract does, then called.

What can be said before the user's code runs is a `ConfigurationError` with the path in the spec and the nearest name.
An exception from inside that code is left as it is: the traceback tells whose it is (failures.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainmaster_api import references
from trainmaster_api.spec.part import Call

from .errors import ConfigurationError

USER_PACKAGES: set[str] = set()
"""Top-level packages that a reference of this process named: what fails inside them is the user's."""
FOLDERS: list[Path] = []
"""Folders of jobs in which references find modules."""


def use_folder(folder: Path) -> None:
    """Let references find modules in the job's folder. Called in a rank only; it comes last on sys.path."""
    folder = folder.absolute()
    references.use_folder(folder)
    if folder not in FOLDERS:
        FOLDERS.append(folder)


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
    USER_PACKAGES.add(reference.partition(":")[0].partition(".")[0])
    try:
        return references.resolve(reference, FOLDERS[-1] if FOLDERS else Path.cwd())
    except references.Unresolved as reason:
        raise ConfigurationError(f"{path} {reference}: {reason}") from None


def call(
    target: Callable[..., Any],
    path: str,
    how: Call,
    args: Mapping[str, Any],
    *first: Any,
    offered: Mapping[str, Any] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Any:
    """Call a user's class or function: `first`, then the keyword arguments of `arguments`.

    Every call of a constructor of the user's is made here: what fails in this line is theirs (failures.py).
    """
    return target(*first, **arguments(target, path, how, args, offered, fields))


def arguments(
    target: Callable[..., Any],
    path: str,
    how: Call,
    args: Mapping[str, Any],
    offered: Mapping[str, Any] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the keyword arguments that a user's class or function is called with.

    Args:
        target: What is called.
        path: The part in the spec: `model`.
        how: The contract's description of the call.
        args: `args` of the part.
        offered: Values of what `how` offers where the signature names it and `args` doesn't; some may not be there.
        fields: Values of arguments that come from fields of the part.

    Raises:
        ConfigurationError: The arguments don't fit the signature; all problems at once.
    """
    values, given = offered or {}, fields or {}
    findings = references.argument_findings(
        target,
        args,
        positional=how.positional if inspect.isclass(target) else how.function_positional,
        offered=[name for name in how.offered if name in values],
        fields={name: how.fields[name] for name in given},
    )
    if findings:
        raise ConfigurationError("; ".join(f"{path}.{each.field}: {each.message}" for each in findings))
    named = {name: values[name] for name in how.offered if name in values and names_argument(target, name)}
    return {**named, **given, **args}


def names_argument(target: Callable[..., Any], argument: str) -> bool:
    """Return whether a signature has an argument of this name; `**options` is none."""
    try:
        found = inspect.signature(target).parameters.get(argument)
    except (TypeError, ValueError):  # written in C without a signature
        return False
    return found is not None and found.kind in (found.POSITIONAL_OR_KEYWORD, found.KEYWORD_ONLY)
