"""Many writers at once, for whatever promises that one of them wins."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from trainmaster_trainer.storage.store import Changed, Store

WRITERS = 4


def count_together(store: Store, times: int) -> int:
    """Several threads add one to a number in storage, `times` times in all; a lost update is a count too few.

    Returns:
        The number at the end.
    """

    def add(_: int) -> None:
        while True:
            found = store.get_versioned("count")
            value = int(found[0]) + 1 if found else 1
            try:
                return store.put_if("count", str(value).encode(), found[1] if found else None)
            except Changed:
                continue

    with ThreadPoolExecutor(WRITERS) as threads:
        list(threads.map(add, range(times)))
    return int(store.get("count") or b"0")
