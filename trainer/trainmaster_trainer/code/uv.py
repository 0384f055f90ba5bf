"""Runs uv, which installs packages, and puts what it says into sentences: it has no codes for what went wrong."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from trainmaster_api.requirements import Pin

from trainmaster_trainer.errors import CodeError, CodeUnavailable

FIELD = "spec.training.code.requirements"
_SECONDS = 3600
_PYPI = "PyPI"  # which uv asks where it is told nothing
# Settings of uv that say where packages come from and how; others, such as UV_TARGET, would change what is made.
_KEPT = re.compile(
    r"UV_(DEFAULT_INDEX|INDEX|EXTRA_INDEX_URL|FIND_LINKS|KEYRING_PROVIDER|INSECURE_HOST|NATIVE_TLS|SYSTEM_CERTS|HTTP_|"
    r"CONCURRENT_|OFFLINE)"
)
_FOR_PIP = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_TRUSTED_HOST": "UV_INSECURE_HOST",
    "PIP_CERT": "SSL_CERT_FILE",
}
_OLD_NAMES = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}
_QUICK = {"UV_HTTP_TIMEOUT": "30", "UV_HTTP_RETRIES": "3"}
_UNREACHABLE = re.compile(
    r"error sending request|connect error|dns error|failed to lookup|timed out|timeout|"
    r"connection (refused|reset|closed)|response body|before message (length|completed)|\((408|429|5\d\d)\b[^)]*\)",
    re.IGNORECASE,
)
_DENIED = re.compile(r"(?:\(|returned a )((?:401|403|407) [A-Za-z ]+?)(?:\)| error)")
_HASH = re.compile(r"Hash mismatch for `([^`]+)`")
_ABSENT = re.compile(
    r"Because (\S+) was not found|no version of (\S+?==\S+)|no versions of (\S+)|Because (\S+) has no wheels",
    re.IGNORECASE,
)
_NAMED = re.compile(r"^[A-Za-z0-9._-]+=(?=[a-z+]+://)")
_SECRET = re.compile(r"(://)[^/\s]*@")
_MOST_TEXT = 600


def run_uv(
    arguments: Sequence[str], pins: Sequence[Pin], environment: Mapping[str, str], wheels: str | None = None
) -> None:
    """Install what the arguments say, with checksums and without building anything.

    Args:
        arguments: Of `uv pip install`.
        pins: What is installed.
        environment: With the index of packages.
        wheels: `code.wheels`, where they come from it; None: from the index.

    Raises:
        CodeError: There is no uv, no such package, or the index wants another user.
        CodeUnavailable: The index doesn't respond, or the disk is full.
    """
    command = [
        _program(environment), "pip", "install", "--quiet", "--no-config", "--no-cache", "--no-progress",
        "--color=never", "--no-deps", "--require-hashes", "--no-build", "--compile-bytecode", "--python",
        sys.executable, *arguments,
    ]  # fmt: skip
    own = settings(environment)
    try:
        done = subprocess.run(
            command, env=own, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        source = _source(own, wheels)
        raise CodeUnavailable(f"{FIELD}: installing them from {source} didn't end within {_SECONDS} s") from None
    if done.returncode:
        raise _failure(done.stderr, pins, own, wheels)


def _program(environment: Mapping[str, str]) -> str:
    """Return the program of the Python package uv, or the one on the path."""
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("uv", path=environment.get("PATH"))
    if found is None:
        raise CodeError(f"{FIELD} needs the program uv, which isn't here; install it with the Python package uv")
    return found


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of uv: with the index, also where pip's settings name it; no other setting of uv's."""
    kept = {key: value for key, value in environment.items() if not key.startswith("UV_") or _KEPT.match(key)}
    for theirs, ours in _FOR_PIP.items():
        if environment.get(theirs) and not kept.get(ours) and not kept.get(_OLD_NAMES.get(ours, ours)):
            kept[ours] = environment[theirs]
    return {**_QUICK, **kept}


def indexes(own: Mapping[str, str]) -> list[str]:
    """Return the addresses of the indexes in the order in which uv asks them, as they are in its settings."""

    def value(name: str) -> str:
        return own.get(name) or own.get(_OLD_NAMES[name]) or ""

    found = [*value("UV_INDEX").split(), *(value("UV_DEFAULT_INDEX").split() or [_PYPI])]
    return [_NAMED.sub("", each) for each in found]


def without_secrets(address: str) -> str:
    """Return an address without the user and the password in it."""
    try:
        _ = urlsplit(address).port
    except ValueError:  # a password with a slash that isn't encoded
        return re.sub(r"://.*@", "://", address)
    return _SECRET.sub(r"\1", address)


def _source(own: Mapping[str, str], wheels: str | None) -> str:
    if wheels is not None:
        return f"code.wheels ({wheels})"
    found = list(dict.fromkeys(map(without_secrets, indexes(own))))
    return f"the index {found[0]}" if len(found) == 1 else f"the indexes {', '.join(found[:-1])} and {found[-1]}"


def _failure(said: str, pins: Sequence[Pin], own: Mapping[str, str], wheels: str | None) -> CodeError | CodeUnavailable:
    """Return what uv's words mean."""
    for address in indexes(own):
        said = said.replace(address, without_secrets(address))
    lines = [_SECRET.sub(r"\1", line.strip()) for line in said.splitlines() if line.strip()]
    text = "; ".join(re.sub(r"^(error|cause|caused by): ", "", line, flags=re.IGNORECASE) for line in lines)
    text = text[:_MOST_TEXT]
    source = _source(own, wheels)
    package = _package(said, pins, own)
    if (found := _HASH.search(said)) is not None:
        computed = re.search(r"Computed:\s*(\S+)", said)
        other = f"the checksum {computed[1]}, which isn't in the lock file" if computed else "another checksum"
        return CodeError(
            f"{FIELD}: the file of {found[1]} from {source} has {other}; it was changed or damaged, or the lock file "
            "is of another source: lock again if the file is the right one"
        )
    if "os error 28" in said:
        return CodeUnavailable(f"{FIELD}: the disk is full: {text}")
    if wheels is None and (denied := _DENIED.search(said)) is not None:
        return CodeError(
            f"{FIELD}: {source} refuses {package} ({denied[1]}); give the pods an address with a user and a password "
            "that may read it, as UV_DEFAULT_INDEX or PIP_INDEX_URL from a Secret (cluster.workers.template)"
        )
    if _UNREACHABLE.search(said):
        return CodeUnavailable(
            f"{FIELD}: {package} can't be fetched from {source} ({text}); if it is another index, set UV_DEFAULT_INDEX "
            "or PIP_INDEX_URL in the environment of the pods (cluster.workers.template), or bring the wheels with "
            "code.wheels"
        )
    if (absent := _ABSENT.search(said)) is not None:
        name = next(group for group in absent.groups() if group)
        python = f"Python {sys.version_info.major}.{sys.version_info.minor} on {sysconfig.get_platform()}"
        return CodeError(f"{FIELD}: {source} has no wheel of {name} for {python} ({text})")
    return CodeError(f"{FIELD}: {package} from {source}: {text or 'uv failed without a word'}")


def _package(said: str, pins: Sequence[Pin], own: Mapping[str, str]) -> str:
    """Return the package that uv speaks of, or what they are all."""
    for address in indexes(own):
        said = said.replace(without_secrets(address), "")
    for pin in pins:
        name = re.escape(pin.name).replace(r"\-", "[-_.]")
        if re.search(rf"(?<![\w.-]){name}(?=[\s`'\"=/,;:)]|-\d|$)", said, re.IGNORECASE | re.MULTILINE):
            return f"{pin.name}=={pin.version}"
    return "packages"
