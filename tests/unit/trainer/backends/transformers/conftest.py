from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.trainer.backends.script.warm import Warm

WARM = Warm(
    "transformers.trainer",
    "transformers.models.bert.modeling_bert",
    "accelerate",
    "trainmaster_trainer.backends.transformers.fit",
    "trainmaster_trainer.storage.store",
)
"""What ranks of these tests are forked from."""


@pytest.fixture(scope="session", autouse=True)
def warm_process_ends() -> Iterator[None]:
    """End what ranks were forked from."""
    yield
    WARM.stop()
