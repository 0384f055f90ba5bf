"""How lists are put into sentences: the first ten, and how many more there are."""

from __future__ import annotations

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
