from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from trainmaster_api.archive import remove

from .world import Index, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    remove(world.cache)  # read-only folders


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path / "index")
    yield index
    index.close()
