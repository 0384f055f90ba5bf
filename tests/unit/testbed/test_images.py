"""Which images nodes start from."""

import pytest

from testbed import images


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was asked to be unpacked, where of ours only the operator is built."""
    asked: list[list[str]] = []
    monkeypatch.setattr(images, "build_scratch", lambda names: asked.append(list(names)))
    monkeypatch.setattr(images, "is_stored", lambda short: short == "operator")
    monkeypatch.setattr(images, "update_golden", lambda names: asked.append(list(names)))
    return asked


def test_everything_that_is_built_is_unpacked_and_the_small_images_are_built_for_it(unpacked: list[list[str]]) -> None:
    names = images.unpack()
    assert unpacked == [["pause", "coredns", "minio"], names]
    assert names == [f"docker.io/trainmaster/{short}:dev" for short in ("pause", "coredns", "minio", "operator")]


def test_a_bare_bed_needs_nothing_but_pause(unpacked: list[list[str]]) -> None:
    names = images.unpack(everything=False)
    assert unpacked == [["pause"], names]
    assert names == ["docker.io/trainmaster/pause:dev"]
