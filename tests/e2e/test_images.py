"""What is in the images: no root, no frameworks in the operator's, our own code in a small last layer."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from testbed import images
from testbed.oci import image_name

pytestmark = pytest.mark.cluster
CODE_LAYERS = 2  # the sources, and their byte code


class Image:
    """An image in the test bed's store."""

    def __init__(self, short: str) -> None:
        if image_name(short) not in images.layout().digests():
            pytest.skip(f"{image_name(short)} wasn't built by the test bed: `python -m testbed images build`")
        _, config, *layers = images.layout().blobs_of(image_name(short))
        self.config: dict[str, Any] = json.loads(images.layout().blob(config).read_text())["config"]
        self.layers: list[Path] = [images.layout().blob(layer) for layer in layers]

    def members(self, layer: int) -> list[tarfile.TarInfo]:
        """Every file of a layer."""
        with tarfile.open(self.layers[layer]) as tar:
            return tar.getmembers()


@pytest.fixture(scope="module", params=["operator", "trainer"])
def image(request: pytest.FixtureRequest) -> Image:
    return Image(request.param)


def test_user_is_a_number_other_than_root(image: Image) -> None:
    user = image.config["User"].partition(":")[0]
    assert user.isdigit()  # the kubelet can't tell that a name isn't root
    assert int(user) > 0


def test_nothing_of_the_building_machine_is_in_the_environment(image: Image) -> None:
    names = {entry.partition("=")[0] for entry in image.config["Env"]}
    assert not {name for name in names if name.startswith(("PIP_", "UV_", "SSL_")) or name.lower().endswith("_proxy")}


def test_our_code_is_the_last_and_small_layer(image: Image) -> None:
    code = [member for layer in range(-CODE_LAYERS, 0) for member in image.members(layer) if member.isfile()]
    assert code
    assert {Path(member.name).parts[:2] for member in code} == {("opt", "trainmaster")}
    assert sum(member.size for member in code) < 8e6, "unpacked, with byte code"


def test_byte_code_is_there_and_holds_whatever_the_files_times_are(image: Image) -> None:
    sources = {m.name for layer in range(-CODE_LAYERS, 0) for m in image.members(layer) if m.name.endswith(".py")}
    with tarfile.open(image.layers[-1]) as tar:
        compiled = [member for member in tar if member.name.endswith(".pyc")]
        assert len(compiled) == len(sources)
        for member in compiled:
            file = tar.extractfile(member)
            assert file is not None
            assert file.read(8)[4] == 0b01  # PEP 552: hash-based, not checked


def test_operator_image_is_small_and_has_no_framework() -> None:
    image = Image("operator")
    members = [member for layer in range(len(image.layers)) for member in image.members(layer)]
    size = sum(member.size for member in members)
    print(f"operator image: {size / 1e6:.0f} MB")
    assert size < 250e6
    packages = {Path(m.name).name for m in members if m.isdir() and Path(m.name).parent.name == "site-packages"}
    assert {"kopf", "aiohttp", "pydantic"} <= packages
    assert not {"torch", "ray", "mlflow", "kubernetes", "numpy", "pip", "setuptools"} & packages
