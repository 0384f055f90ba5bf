from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.trainer.backends.lightning.launch import WARM


@pytest.fixture(scope="session", autouse=True)
def warm_process_ends() -> Iterator[None]:
    """End what ranks were forked from."""
    yield
    WARM.stop()
