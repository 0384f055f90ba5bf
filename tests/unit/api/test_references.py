"""References to code: what is found, and what is wrong with the arguments, in the process that asks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.references import Unresolved, argument_findings, resolve, use_folder

CODE = """
class Net:
    def __init__(self, hidden, depth=2, *, dropout=0.0, outputs=None): ...

    class Inner:
        pass

class Open:
    def __init__(self, **options): ...

def loss(output, target, weight=1.0): ...

CONSTANT = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "own_parts").mkdir()
    (tmp_path / "own_parts" / "__init__.py").write_text("")
    (tmp_path / "own_parts" / "nets.py").write_text(CODE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    use_folder(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_resolve_in_the_folder_and_among_installed_packages(folder: Path) -> None:
    assert resolve("own_parts.nets:Net", folder).__name__ == "Net"
    assert resolve("own_parts.nets:Net.Inner", folder).__name__ == "Inner"
    assert resolve("collections:OrderedDict", folder).__name__ == "OrderedDict"


def test_the_folder_comes_last_on_the_path(folder: Path) -> None:
    assert sys.path[-1] == str(folder)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("own_part.nets:Net", "no module 'own_part' in .*; did you mean `own_parts`?"),
        ("own_parts.net:Net", "no module 'own_parts.net' in .*; did you mean `own_parts.nets`?"),
        ("own_parts.nets:Nett", "own_parts.nets has no 'Nett'; did you mean `Net`?"),
        ("own_parts.nets:Net.Iner", "own_parts.nets has no 'Iner'; did you mean `Inner`?"),
        ("own_parts.nets:CONSTANT", "is a int, which isn't callable"),
    ],
)
def test_what_leads_nowhere_has_the_nearest_name(folder: Path, reference: str, words: str) -> None:
    with pytest.raises(Unresolved, match=words):
        resolve(reference, folder)


def test_a_file_that_another_module_hides_is_refused(folder: Path) -> None:
    (folder / "queue.py").write_text("class Net: ...\n")
    with pytest.raises(Unresolved, match=r"queue.py is hidden by the installed module queue .*; rename it"):
        resolve("queue:Net", folder)


def test_what_a_module_misses_itself_is_its_own_error(folder: Path) -> None:
    (folder / "own_broken.py").write_text("import no_such_module_at_all\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        resolve("own_broken:Net", folder)


def said(target: Any, args: dict[str, Any], **how: Any) -> list[tuple[str, str]]:
    found = argument_findings(target, args, **{"positional": 0, "offered": (), "fields": {}, **how})
    return [(each.field, each.message) for each in found]


def test_every_argument_is_compared_with_the_signature(folder: Path) -> None:
    net = resolve("own_parts.nets:Net", folder)
    assert said(net, {"hidden": 3, "dropout": 0.1}) == []
    assert said(net, {"hiden": 3, "nonsense": 1}) == [
        ("args.hiden", "Net has no such argument; its arguments are hidden, depth, dropout, outputs; "
         "did you mean `hidden`?"),
        ("args.nonsense", "Net has no such argument; its arguments are hidden, depth, dropout, outputs"),
        ("args", "Net needs hidden"),
    ]  # fmt: skip


def test_arguments_given_by_the_trainer_are_known(folder: Path) -> None:
    net, loss = resolve("own_parts.nets:Net", folder), resolve("own_parts.nets:loss", folder)
    assert said(net, {}, offered=("hidden", "num_classes")) == []
    assert said(loss, {"weight": 2.0}, positional=2) == []
    assert said(loss, {"target": 2.0}, positional=2)[0][0] == "args.target"
    assert said(lambda: None, {}, positional=2) == [
        ("class", "<lambda> is called with 2 positional arguments and takes 0")
    ]


def test_a_field_of_the_part_is_an_argument(folder: Path) -> None:
    net, anything = resolve("own_parts.nets:Net", folder), resolve("own_parts.nets:Open", folder)
    fields = {"lr": "lr", "weight_decay": "weightDecay"}
    assert said(net, {"hidden": 1}, fields=fields) == [
        ("lr", "Net takes no argument lr"),
        ("weightDecay", "Net takes no argument weight_decay"),
    ]
    assert said(anything, {"any": 1}, fields=fields) == []
    assert said(anything, {"lr": 1}, fields=fields) == [("args.lr", "is given by `lr`: remove it")]


def test_a_target_without_a_signature_is_left_to_the_call() -> None:
    assert said(dict.fromkeys, {"x": 1}) == [] or said(type, {"x": 1}) == []
