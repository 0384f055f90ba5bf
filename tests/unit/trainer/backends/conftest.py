from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.trainer.backends.script.launching import RUNNING


@pytest.fixture(autouse=True)
def no_ranks_are_left() -> Iterator[None]:
    """End the ranks of a test that failed: they would slow down those that follow."""
    yield
    for process in RUNNING:
        if process.poll() is None:
            process.kill()
            process.wait()
    RUNNING.clear()
