"""metrics.jsonl: one line per logged step, always written, the truth that every tracker is a view of."""

from __future__ import annotations

import json
import math
import threading

from trainmaster_api.layout import METRICS

from .store import Store


class MetricsLog:
    """Collects lines in memory and writes the whole file at checkpoints, because object stores can't append.

    Args:
        store: The run's store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._is_dirty = False

    def resume(self, step: int) -> dict[str, float]:
        """Take over the lines up to a step: what came after is done again, and so is the test at the end.

        Returns:
            The newest value of each metric.
        """
        newest: dict[str, float] = {}
        for line in (self._store.get(METRICS) or b"").splitlines():
            try:
                found = json.loads(line)
                if found["step"] <= step and not any(name.startswith("test/") for name in found):
                    self._lines.append(line)
                    newest |= {k: float(v) for k, v in found.items() if k not in ("step", "epoch") and v is not None}
            except (ValueError, KeyError, TypeError):
                continue  # torn by a crash in the middle of a write
        return newest

    def add(self, step: int, epoch: int, metrics: dict[str, float]) -> None:
        """Add a line; JSON has no word for a number that isn't finite but null."""
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        line = json.dumps({"step": step, "epoch": epoch, **finite}).encode()
        with self._lock:
            self._lines.append(line)
            self._is_dirty = True

    def count(self, name: str) -> int:
        """Return how many lines have a metric."""
        with self._lock:
            return sum(name in json.loads(line) for line in self._lines)

    def flush(self) -> None:
        """Write the file if there is something new; after a failed write the next flush tries again."""
        with self._lock:
            if not self._is_dirty:
                return
            content, self._is_dirty = b"\n".join(self._lines) + b"\n", False
        try:
            self._store.put(METRICS, content)
        except BaseException:
            with self._lock:
                self._is_dirty = True
            raise
