from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.trainer.backends.script.warm import Warm

WARM = Warm(
    "tests.unit.trainer.backends.script.first_optimizer",
    "trainmaster_trainer.storage.store",
    "trainmaster_trainer.backends.script.fit",
)
"""What ranks of example programs are forked from."""


@pytest.fixture(scope="session", autouse=True)
def warm_process_ends() -> Iterator[None]:
    """End what ranks were forked from."""
    yield
    WARM.stop()
