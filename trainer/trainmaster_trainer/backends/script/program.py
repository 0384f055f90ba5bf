"""Running a Python program in this process as `python FILE` or `python -m MODULE` would."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainmaster_api import parameters
from trainmaster_api.spec.own import Script

from trainmaster_trainer.errors import ConfigurationError, UserCodeError
from trainmaster_trainer.failures import users_frames

_LINES = 12
_REMEMBERED = 8192
"""Characters of standard error."""
_ADDRESS_TAKEN = ("EADDRINUSE", "address already in use")


def run(script: Script, folder: Path) -> Ended:
    """Run the program in `folder`, in this thread.

    Returns:
        How it ended: with status 0 where it returned.

    Raises:
        ConfigurationError: There is no such file or module.
        BaseException: Whatever the program raises.
    """
    argv, path = sys.argv, list(sys.path)
    try:
        if script.path is not None:
            file = folder / script.path
            if not file.is_file():
                raise ConfigurationError(f"script.path: there is no file {script.path} in {folder}{_others(folder)}")
            sys.argv = [script.path, *parameters.arguments(script)]
            sys.path.insert(0, str(file.parent))  # as `python FILE` does
            return _ended(lambda: runpy.run_path(str(file), run_name="__main__"))
        module = script.module or ""
        sys.argv = [module, *parameters.arguments(script)]
        sys.path.insert(0, str(folder))  # as `python -m` does
        return _ended(lambda: runpy.run_module(module, run_name="__main__", alter_sys=True))
    except ImportError as error:
        if script.module is not None and error.name is None and script.module in str(error):  # of runpy itself
            raise ConfigurationError(f"script.module: {error} in {folder}{_others(folder)}") from None
        raise
    finally:
        sys.argv, sys.path[:] = argv, path


class Tail:
    """Standard error of the program, of which the last lines are remembered: they say why it ended itself."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._text = ""

    def write(self, text: str) -> int:
        """Write to the stream."""
        self._text = (self._text + text)[-_REMEMBERED:] if len(text) < _REMEMBERED else text[-_REMEMBERED:]
        return int(self._stream.write(text))

    def writelines(self, lines: Iterable[str]) -> None:
        """Write to the stream."""
        for line in lines:
            self.write(line)

    def lines(self) -> list[str]:
        """Return the last lines."""
        return [line.rstrip() for line in self._text.splitlines() if line.strip()][-_LINES:]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@dataclass(frozen=True)
class Ended:
    """How a program ended itself.

    Attributes:
        status: Its exit status.
        frames: Where it did, the user's own line first; empty where it returned.
        printed: What it printed last to standard error.
    """

    status: int = 0
    frames: list[str] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)


def _ended(program: Callable[[], object]) -> Ended:
    stream = sys.stderr
    tail = Tail(stream)
    sys.stderr = tail
    try:
        program()
    except SystemExit as end:
        status = int(end.code or 0) if end.code is None or isinstance(end.code, int) else 1
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=tail)
        return Ended(status, users_frames(end), tail.lines())
    finally:
        if sys.stderr is tail:
            sys.stderr = stream
    return Ended()


def require_success(ended: Ended, step: int) -> None:
    """Raise UserCodeError for an exit status other than 0."""
    if ended.status:
        after = f"after step {step}" if step else "before its first step"
        said = f"; the last line that it printed to stderr: {ended.printed[-1][:300]}" if ended.printed else ""
        error = UserCodeError(f"the program ended itself with exit status {ended.status} {after}{said}")
        error.last_lines = [*ended.frames[: _LINES - 2], *ended.printed][:_LINES]
        raise error


def port_is_taken(error: BaseException) -> bool:
    """Return whether the program failed because its rendezvous port is in use."""
    text = str(error)
    return os.environ.get("MASTER_PORT", "-") in text and any(word in text for word in _ADDRESS_TAKEN)


def _others(folder: Path) -> str:
    found = sorted(str(each.relative_to(folder)) for each in folder.rglob("*.py"))[:10]
    return f"; Python files there are {', '.join(found)}" if found else "; it has no Python files"
