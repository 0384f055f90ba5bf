"""How lists are put into sentences: the first ten, and how many more there are."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

MOST_NAMED = 10


def first_of(words: Sequence[str], count: int | None = None, between: str = "; ") -> str:
    """Return the first words and the number of the others: `row 1; row 2 and 7 more`.

    Args:
        words: At least the first MOST_NAMED of them.
        count: How many there are; default: as many as `words`.
        between: What stands between two.
    """
    more = (len(words) if count is None else count) - MOST_NAMED
    return between.join(words[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def printable(text: str) -> str:
    """Return text with control characters, invisible ones and unusual spaces as escapes, so that it stays in a line."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def quoted(words: Sequence[str]) -> str:
    """Return names as they are shown in a sentence: `'a', 'b'`; as escapes where they would look the same."""
    look_the_same = len({unicodedata.normalize("NFC", word) for word in words}) < len(words)
    return ", ".join(map(ascii if look_the_same else repr, words))
