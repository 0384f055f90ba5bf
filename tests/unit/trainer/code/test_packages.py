"""Which packages of a lock file are installed, and which contradict the image."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from trainmaster_api.requirements import ROOTS, Pin, normalized
from trainmaster_trainer.code.packages import Installed, installed, needed, wanted

HERE = Installed({"torch": "2.13.0+cu130", "numpy": "2.4.1", "mine": "1.0"}, frozenset({"torch", "numpy"}))


def pin(text: str, marker: str = "", line: int = 1) -> Pin:
    name, _, number = text.partition("==")
    return Pin(name, number, marker, ("sha256:" + "0" * 64,), line)


def test_what_the_image_has_is_not_installed() -> None:
    new, other, same = pin("new==1.0"), pin("mine==2.0"), pin("mine==1.0.0")
    assert wanted([new, pin("torch==2.13.0"), pin("numpy==2.4.1"), same], HERE).install == (new,)
    assert wanted([other], HERE).install == (other,), "a package that Trainmaster doesn't need may be replaced"


def test_another_version_of_ours_is_refused_by_both_versions() -> None:
    pins = [pin("numpy==1.26.4", line=7), pin("torch==2.12.0", line=9), pin("new==1.0")]
    assert wanted(pins, HERE).problems == (
        "line 7: numpy is 1.26.4, and Trainmaster in this image has 2.4.1",
        "line 9: torch is 2.12.0, and Trainmaster in this image has 2.13.0+cu130",
    )
    assert wanted([pin("numpy==1.0", line=n) for n in range(12)], HERE).problems[-1] == "2 more"


def test_markers_say_where_a_package_is_needed() -> None:
    elsewhere = pin("numpy==1.0", 'sys_platform == "nowhere"')
    here = pin("new==1.0", 'python_version >= "3"')
    assert wanted([elsewhere, here], HERE).install == (here,)
    assert wanted([pin("a==1.0", "no marker", 3)], HERE).problems[0].startswith("line 3: a ")


def test_what_we_need_is_followed_with_its_extras() -> None:
    requires = {
        "ray": [
            "click>=7",
            'aiohttp>=3; extra == "default"',
            'tensorboardX; extra == "tune"',
            'no; python_version < "3"',
        ],
        "click": ["deep"],
        "deep": ["ray"],
        "aiohttp": [],
        "tensorboardx": [],
        "no": [],
        "mine": ["click"],
    }
    assert needed(["ray[default]", "gone"], requires) == {"ray", "click", "deep", "aiohttp"}


def test_this_python() -> None:
    found = installed()
    assert found.versions["torch"] == version("torch")
    assert {"torch", "ray", "numpy", "pydantic", "aiohttp"} <= found.ours
    assert "pytest" not in found.ours


def test_roots_are_what_the_project_declares() -> None:
    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["trainer"]]
    names = {normalized(Requirement(each).name) for each in declared}
    assert {Requirement(root).name for root in ROOTS} == {*names, "trainmaster"}
