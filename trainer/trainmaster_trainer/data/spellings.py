"""Names that a reader takes for one: they differ in case, space, invisible characters or Unicode form only."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

MOST_COMPARED = 10_000


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return groups of names that look alike; of no more than the first MOST_COMPARED names."""
    groups: dict[str, list[str]] = {}
    for _, name in zip(range(MOST_COMPARED), names, strict=False):
        groups.setdefault(_plain(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _plain(name: str) -> str:
    visible = "".join(letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", visible.casefold()).split())
