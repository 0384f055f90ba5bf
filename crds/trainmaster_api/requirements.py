"""The lock file of `code.requirements`: what `pip` reads, with every package at one version and by its checksums.

Read where the file is written (`trainmaster validate`, `submit`) and where it is installed. Pure; the standard library
alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

ROOTS = (
    "trainmaster", "pydantic", "pyyaml", "torch", "torchvision", "ray[default]", "mlflow", "obstore", "pyarrow",
    "pandas", "numpy", "scikit-learn", "pillow", "rich", "requests", "safetensors", "tokenizers", "lightning",
    "transformers", "accelerate", "watchdog", "pathspec", "packaging", "uv", "optuna", "cmaes",
    "matplotlib",
)  # fmt: skip
"""What Trainmaster needs in a pod, and with it what these need."""
MOST_BYTES = 4 * 2**20
_MOST_PROBLEMS = 10
_PIN = re.compile(
    r"(?P<name>[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(\[[^\]]*\])?\s*==\s*(?P<version>[A-Za-z0-9.!+_-]+)"
    r"\s*(;\s*(?P<marker>.+))?"
)
_HASH = re.compile(r"\s--hash[=\s](\S+)")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_COMMENT = re.compile(r"(^|\s)#.*$")
_RELOCK = "write the file with `uv pip compile --generate-hashes`"
_OPTIONS = (
    (("-e", "--editable"), "is an editable install, which no checksum fixes; put the code itself into the folder"),
    (("-r", "--requirement", "-c", "--constraint"), "names another file; lock all packages in one"),
    (
        ("-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index"),
        "says where packages come from; remove it: set UV_DEFAULT_INDEX or PIP_INDEX_URL in the pods, or code.wheels",
    ),
)


@dataclass(frozen=True)
class Pin:
    """A package of a lock file.

    Attributes:
        name: As it is compared: in lower case, with `-` between its parts.
        version: The one that is installed.
        marker: Where it is needed, such as `sys_platform == "linux"`; empty: everywhere.
        hashes: Checksums of the files that may be installed, `sha256:...`.
        line: Where it is in the file, from 1.
    """

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    line: int

    def __str__(self) -> str:
        """Return it as a line for pip or uv, without its marker."""
        return " ".join([f"{self.name}=={self.version}", *(f"--hash={each}" for each in self.hashes)])


def read(content: bytes) -> tuple[list[Pin], list[str]]:
    """Return the packages of a lock file, and what is wrong with it: the first ten problems, each with its line.

    Args:
        content: Of the file.
    """
    if len(content) > MOST_BYTES:
        return [], [f"it has {len(content) >> 20} MiB; a lock file has at most {MOST_BYTES >> 20}"]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return [], [f"it is not text: byte {error.start} is not UTF-8"]
    pins: list[Pin] = []
    problems: list[str] = []
    for number, line in _lines(text):
        found = _pin(number, line)
        if isinstance(found, Pin):
            pins.append(found)
        else:
            problems.append(f"line {number}: {found}")
    more = len(problems) - _MOST_PROBLEMS
    return pins, [*problems[:_MOST_PROBLEMS], *([f"{more} more"] if more > 0 else [])]


def normalized(name: str) -> str:
    """Return a package's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines without comments, joined where one ends with a backslash, and where each begins."""
    parts: list[str] = []
    first = 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = _COMMENT.sub("", raw).rstrip()
        first = first if parts else number
        if line.endswith("\\"):
            parts.append(line[:-1])
            continue
        whole = " ".join([*parts, line]).strip()
        parts = []
        if whole:
            yield first, whole
    if whole := " ".join(parts).strip():
        yield first, whole


def _pin(number: int, line: str) -> Pin | str:
    """Return the package of a line, or what is wrong with it."""
    hashes = tuple(_HASH.findall(line))
    asked = _HASH.sub("", line).strip()
    shown = f"`{asked if len(asked) <= 80 else asked[:77] + '...'}`"
    if asked.startswith("-"):
        option = re.split(r"[=\s]", asked, maxsplit=1)[0]
        words = next((words for options, words in _OPTIONS if option in options), "is an option, which isn't read here")
        return f"{shown} {words}"
    if "://" in asked or " @ " in asked:
        return f"{shown} is an address; name the package and its version, and bring its wheel with code.wheels"
    match = _PIN.fullmatch(asked)
    if match is None:
        return f"{shown} must be NAME==VERSION, one version of one package; {_RELOCK}"
    if not hashes:
        return f"{shown} has no checksum (--hash=sha256:...); {_RELOCK}"
    wrong = next((each for each in hashes if not _SHA256.fullmatch(each)), None)
    if wrong is not None:
        return f"{shown} has the checksum {wrong[:80]}, which is no sha256:...; {_RELOCK}"
    return Pin(normalized(match["name"]), match["version"], (match["marker"] or "").strip(), hashes, number)
