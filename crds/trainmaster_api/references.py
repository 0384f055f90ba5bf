"""References to code, `package.module:Name`: found, and compared with the arguments of the spec. Nothing is called.

The standard library alone, for two users: a rank, which calls what it has resolved, and `check`, which `trainmaster
validate` runs in a process of its own (`python -m trainmaster_api.references`), because importing a user's module may
load torch, print, hang or end the process. The operator resolves nothing.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any


class Unresolved(Exception):  # noqa: N818 - an answer, not an error
    """A reference that can't be resolved; the message is a clause that follows the reference."""


@dataclass(frozen=True)
class Finding:
    """What is wrong with the arguments of a reference.

    Attributes:
        field: Field below the part: `args.hiden`, `args`, `lr`.
        message: Clause that follows its path.
    """

    field: str
    message: str


def use_folder(folder: Path) -> None:
    """Let references find modules in the job's folder.

    It comes last on sys.path, so a file of the user's never shadows a module that other code imports (a
    `queue.py` beside the job must not reach torch).
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()


def resolve(reference: str, folder: Path) -> Any:
    """Return the object behind a reference.

    Args:
        reference: `package.module:Name`.
        folder: The job's folder, on sys.path already.

    Raises:
        Unresolved: The module or name doesn't exist, or an installed module shadows the one in the folder.
        BaseException: Whatever the module raises while it is imported.
    """
    module_name, _, name = reference.partition(":")
    _require_not_hidden(module_name.partition(".")[0], folder)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there; what it imports is not
        raise Unresolved(
            f"no module {error.name!r} in {folder} or among the installed packages"
            f"{did_you_mean(error.name, _modules(folder))}"
        ) from None
    for part in name.split("."):
        if not hasattr(found, part):
            known = [each for each in dir(found) if not each.startswith("_")]
            raise Unresolved(f"{module_name} has no {part!r}{did_you_mean(part, known)}")
        found = getattr(found, part)
    if not callable(found):
        raise Unresolved(f"is a {type(found).__name__}, which isn't callable")
    return found


def argument_findings(
    target: Any,
    args: Mapping[str, Any],
    *,
    positional: int,
    offered: Iterable[str],
    fields: Mapping[str, str],
) -> list[Finding]:
    """Return everything that is wrong with the arguments, by the target's signature.

    Args:
        target: Class or function.
        args: `args` of the part.
        positional: How many positional arguments the trainer gives first.
        offered: Arguments that the trainer gives where the signature has them and `args` doesn't.
        fields: Argument -> the part's field that it always comes from, as `weight_decay` does from `weightDecay`.
    """
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return []  # written in C without a signature: the call will say what is wrong
    label = getattr(target, "__name__", "it")
    parameters = list(signature.parameters.values())
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = {
        p.name: p for p in parameters[positional:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }  # fmt: skip
    own = [name for name in named if name not in fields and name not in offered]
    found = []
    for name, field in fields.items():
        if name not in named and not takes_any:
            found.append(Finding(field, f"{label} takes no argument {name}"))
    for name in args:
        if name in fields:
            found.append(Finding(f"args.{name}", f"is given by `{fields[name]}`: remove it"))
        elif name not in named and not takes_any:
            known = f"; its arguments are {', '.join(own)}" if own else "; it takes none"
            found.append(Finding(f"args.{name}", f"{label} has no such argument{known}{did_you_mean(name, own)}"))
    given = {*args, *fields, *offered}
    missing = [name for name, p in named.items() if p.default is p.empty and name not in given]
    if missing:
        found.append(Finding("args", f"{label} needs {', '.join(missing)}"))
    taken = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(taken) < positional and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        found.append(
            Finding("class", f"{label} is called with {positional} positional arguments and takes {len(taken)}")
        )
    return found


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean `x`?`` for the nearest known name, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


def _require_not_hidden(top: str, folder: Path) -> None:
    """Reject a module of the job's folder that is shadowed by another one."""
    own = next((each for each in (folder / f"{top}.py", folder / top) if each.exists()), None)
    if own is None or (own.is_dir() and not any(own.rglob("*.py"))):
        return
    found = importlib.util.find_spec(top)
    origins = [found.origin, *(found.submodule_search_locations or [])] if found else []
    if not any(origin and Path(origin).is_relative_to(folder) for origin in origins):
        other = origins[0] if origins and origins[0] else "a module of Python's own"
        raise Unresolved(f"{own} is hidden by the installed module {top} ({other}); rename it")


def _modules(folder: Path) -> list[str]:
    """Return the modules of a folder, dotted, for the nearest name."""
    found = set()
    for file in [*folder.glob("*.py"), *folder.glob("*/*.py"), *folder.glob("*/*/*.py")]:
        parts = file.relative_to(folder).with_suffix("").parts
        found |= {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return sorted(found)


# --- in a process of its own ---------------------------------------------------------------------------------------


def check(request: Mapping[str, Any]) -> list[dict[str, str]]:
    """Resolve each reference of a request and compare its arguments.

    Args:
        request: `folder`, and `parts`: each with path, where (the field of the reference), class or name and group,
            args, and how it is called.

    Returns:
        Problems as {path, message}.
    """
    folder = Path(request["folder"])
    use_folder(folder)
    problems = []
    for part in request["parts"]:
        where = part["where"]
        try:
            target = resolve(part["class"], folder) if part["class"] else _entry_point(part["group"], part["name"])
        except Unresolved as reason:
            problems.append({"path": where, "message": str(reason)})
            continue
        except BaseException as error:  # noqa: BLE001 - a user's module may raise anything, SystemExit too
            problems.append({"path": where, "message": f"can't be imported: {_said(error, folder)}"})
            continue
        if target is None:
            continue
        call = part["call"]
        positional = call["positional"] if inspect.isclass(target) else call["functionPositional"]
        found = argument_findings(
            target, part["args"], positional=positional, offered=call["offered"], fields=call["fields"]
        )
        problems += [{"path": f"{part['path']}.{each.field}", "message": each.message} for each in found]
    return problems


def _entry_point(group: str, name: str) -> Any:
    """Return what an installed package offers; None: it isn't installed here, and may be where the job runs."""
    point = next(iter(entry_points(group=group, name=name)), None)
    return point.load() if point is not None else None


def _said(error: BaseException, folder: Path) -> str:
    """Return the exception with its last place in the user's own files."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        text, frames = f"SyntaxError: {error.msg}", [*frames, (error.filename or "", error.lineno)]
    own = [(file, line) for file, line in frames if Path(file).is_relative_to(folder)]
    place = own or [(file, line) for file, line in frames if not file.startswith("<") and file != __file__]
    return f"{text} ({_near(place[-1][0], folder)}:{place[-1][1]})" if place else text


def _near(file: str, folder: Path) -> str:
    path = Path(file)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else file


def main() -> None:
    """Read a request from standard input and write the problems to standard output, as JSON."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a user's module prints isn't part of the answer
    json.dump(check(json.load(sys.stdin)), answer)
    answer.flush()
    os._exit(0)  # threads that an import has started keep nothing waiting


if __name__ == "__main__":
    main()
