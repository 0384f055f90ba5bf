"""Which packages of a lock file are installed for the ranks: those that the image doesn't have. Pure but for its list.

What Trainmaster itself needs is never replaced: a rank has imported its framework before it knows its job, and two
versions in one process would fit neither. The lock says the version of the image, or it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from trainmaster_api.requirements import ROOTS, Pin, normalized

_MOST_NAMED = 10


@dataclass(frozen=True)
class Installed:
    """The packages of this Python.

    Attributes:
        versions: Of each, by its normalized name.
        ours: Names of those that Trainmaster needs.
    """

    versions: Mapping[str, str]
    ours: frozenset[str]


@dataclass(frozen=True)
class Wanted:
    """What becomes of a lock file.

    Attributes:
        install: What the image doesn't have, in the order of the file.
        problems: Sentences, of which each stops everything.
    """

    install: tuple[Pin, ...]
    problems: tuple[str, ...]


def wanted(pins: Iterable[Pin], here: Installed) -> Wanted:
    """Return what has to be installed, and where the lock contradicts the image."""
    install: list[Pin] = []
    problems: list[str] = []
    for pin in pins:
        try:
            if pin.marker and not Marker(pin.marker).evaluate():
                continue
            there = here.versions.get(pin.name)
            if there is not None and SpecifierSet(f"=={pin.version}").contains(there, prereleases=True):
                continue
        except (InvalidMarker, InvalidSpecifier) as error:
            problems.append(f"line {pin.line}: {pin.name} {str(error).splitlines()[0]}")
            continue
        if there is None or pin.name not in here.ours:
            install.append(pin)
        else:
            problems.append(f"line {pin.line}: {pin.name} is {pin.version}, and Trainmaster in this image has {there}")
    more = len(problems) - _MOST_NAMED
    shown = [*problems[:_MOST_NAMED], *([f"{more} more"] if more > 0 else [])]
    return Wanted(tuple(install), tuple(shown))


def installed() -> Installed:
    """Return the packages of this Python; takes about 0.3 s."""
    found: dict[str, Distribution] = {}
    for each in distributions():
        name = each.metadata["Name"] if each.metadata is not None else None
        if name:
            found.setdefault(normalized(name), each)
    versions = {name: each.version for name, each in found.items()}
    return Installed(versions, needed(ROOTS, {name: each.requires or () for name, each in found.items()}))


def needed(roots: Iterable[str], requires: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """Return the names of packages and of all that they need, of those that are installed.

    Args:
        roots: Requirements such as `ray[default]`.
        requires: Of each installed package, by its normalized name.
    """
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(root) for root in roots]
    while todo:
        asked = todo.pop()
        name = normalized(asked.name)
        for extra in ("", *sorted(asked.extras)):
            if name not in requires or (name, extra) in seen:
                continue
            seen.add((name, extra))
            todo += [each for each in map(_parsed, requires[name]) if each is not None and _applies(each, extra)]
    return frozenset(name for name, _ in seen)


def _parsed(text: str) -> Requirement | None:
    try:
        return Requirement(text)
    except InvalidRequirement:  # of an old package
        return None


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})
