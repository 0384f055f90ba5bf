"""Which images nodes start from."""

import hashlib
from pathlib import Path

import pytest

from testbed import golden, images


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was asked to be unpacked, where of ours only the operator is built."""
    asked: list[list[str]] = []
    monkeypatch.setattr(images, "build_scratch", lambda names: asked.append(list(names)))
    monkeypatch.setattr(images, "is_stored", lambda short: short == "operator")
    monkeypatch.setattr(golden, "update", lambda names: asked.append(list(names)))
    return asked


def test_golden_unpacks_everything_that_is_built(unpacked: list[list[str]]) -> None:
    names = golden.unpack()
    assert unpacked == [["pause", "coredns", "minio"], names]
    assert names == [f"docker.io/trainmaster/{short}:dev" for short in ("pause", "coredns", "minio", "operator")]


def test_a_bare_bed_needs_nothing_but_pause(unpacked: list[list[str]]) -> None:
    names = golden.unpack(everything=False)
    assert unpacked == [["pause"], names]
    assert names == ["docker.io/trainmaster/pause:dev"]


def test_a_layers_snapshot_is_named_after_everything_below_it() -> None:
    a, b, c = (f"sha256:{letter * 64}" for letter in "abc")
    # the OCI image specification, "Layer ChainID": ChainID(L0|...|Ln) = Digest(ChainID(L0|...|Ln-1) + " " + DiffID(Ln))
    ab = f"sha256:{hashlib.sha256(f'{a} {b}'.encode()).hexdigest()}"
    abc = f"sha256:{hashlib.sha256(f'{ab} {c}'.encode()).hexdigest()}"
    assert list(golden.chains([a, b, c])) == [(a, a), (b, ab), (c, abc)]


def test_layers_without_buildah(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "home", lambda: tmp_path)
    assert images.built_layers() == {}
