"""References to code: found, checked, called; and the sentences for what is wrong with them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from trainmaster_api.reasons import FailureClass
from trainmaster_api.spec.part import Call
from trainmaster_trainer.errors import ConfigurationError
from trainmaster_trainer.failures import rank_error
from trainmaster_trainer.references import USER_PACKAGES, call, is_in_job_folder, resolve, use_folder

NETS = """
class Net:
    def __init__(self, width, depth=2, *, dropout=0.0, outputs=None):
        self.given = (width, depth, dropout, outputs)
    class Inner:
        pass

def anything(**options):
    return options

NUMBER = 3
"""


HOW = Call(offered=("outputs", "input_shape"))
OFFERED = {"outputs": 10, "input_shape": (64,)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ref_pkg").mkdir()
    (tmp_path / "ref_pkg" / "__init__.py").write_text("")
    (tmp_path / "ref_pkg" / "nets.py").write_text(NETS)
    (tmp_path / "ref_pkg" / "broken.py").write_text("import ref_nothing_of_this_name\n")
    (tmp_path / "ref_pkg" / "raises.py").write_text("raise ZeroDivisionError('at import')\n")
    use_folder(tmp_path)
    return tmp_path


def test_a_class_in_the_jobs_folder_is_found(folder: Path) -> None:
    found = resolve("ref_pkg.nets:Net", "model.class")
    assert found.__name__ == "Net"
    assert is_in_job_folder(sys.modules["ref_pkg.nets"].__file__ or "")
    assert "ref_pkg" in USER_PACKAGES
    assert resolve("ref_pkg.nets:Net.Inner", "model.class").__qualname__ == "Net.Inner"


def test_a_class_of_an_installed_package_is_found() -> None:
    assert resolve("collections:OrderedDict", "model.class").__name__ == "OrderedDict"
    assert not is_in_job_folder(sys.modules["collections"].__file__ or "")


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("ref_pkg.net:Net", r"^model\.class ref_pkg\.net:Net: no module 'ref_pkg\.net' in .* or among the installed "
         r"packages; did you mean `ref_pkg\.nets`\?"),
        ("ref_pgk.nets:Net", r"no module 'ref_pgk' .*; did you mean `ref_pkg`\?"),
        ("ref_pkg.nets:Nett", r"ref_pkg\.nets has no 'Nett'; did you mean `Net`\?"),
        ("ref_pkg.nets:Net.Iner", r"has no 'Iner'; did you mean `Inner`\?"),
        ("ref_pkg.nets:NUMBER", "is a int, which isn't callable"),
    ],
)  # fmt: skip
def test_resolve_unknown_name_suggests_the_nearest(folder: Path, reference: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        resolve(reference, "model.class")


def test_resolve_errors_at_import_are_user_code_errors(folder: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="ref_nothing_of_this_name"):
        resolve("ref_pkg.broken:Net", "model.class")
    with pytest.raises(ZeroDivisionError, match="at import"):
        resolve("ref_pkg.raises:Net", "model.class")


@pytest.mark.parametrize("name", ["queue", "yaml", "torch", "sys"])
def test_resolve_refuses_a_module_that_an_installed_one_hides(tmp_path: Path, name: str) -> None:
    """Of the standard library, installed, loaded already, built in."""
    (tmp_path / f"{name}.py").write_text("class Net: pass\n")
    use_folder(tmp_path)
    with pytest.raises(ConfigurationError, match=rf"{name}\.py is hidden by the installed module {name} .*; rename it"):
        resolve(f"{name}:Net", "model.class")


def test_resolve_refuses_a_hidden_package_and_no_hidden_data(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "rows.csv").write_text("a,b\n")
    use_folder(tmp_path)
    assert resolve("json:dumps", "model.class")([1]) == "[1]"
    (tmp_path / "json" / "net.py").write_text("class Net: pass\n")
    with pytest.raises(ConfigurationError, match="is hidden by the installed module json"):
        resolve("json.net:Net", "model.class")


def test_use_folder_comes_last_on_the_path(tmp_path: Path) -> None:
    (tmp_path / "colorsys.py").write_text("raise AssertionError('the user has this file for something else')\n")
    sys.modules.pop("colorsys", None)
    use_folder(tmp_path)
    assert sys.path[-1] == str(tmp_path)
    import colorsys

    assert not is_in_job_folder(colorsys.__file__)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"width": 3}, (3, 2, 0.0, 10)),
        ({"width": 3, "depth": 5, "dropout": 0.5}, (3, 5, 0.5, 10)),
        ({"width": 3, "outputs": 7}, (3, 2, 0.0, 7)),
    ],
)
def test_arguments_offers_what_the_signature_names(
    folder: Path, args: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    target = resolve("ref_pkg.nets:Net", "model.class")
    assert call(target, "model", HOW, args, offered=OFFERED).given == expected


def test_every_wrong_argument_is_said_at_once(folder: Path) -> None:
    target = resolve("ref_pkg.nets:Net", "model.class")
    with pytest.raises(ConfigurationError) as caught:
        call(target, "model", HOW, {"widht": 3, "dropuot": 0.1}, offered=OFFERED)
    assert str(caught.value) == (
        "model.args.widht: Net has no such argument; its arguments are width, depth, dropout; did you mean `width`?; "
        "model.args.dropuot: Net has no such argument; its arguments are width, depth, dropout; "
        "did you mean `dropout`?; model.args: Net needs width"
    )


def test_arguments_takes_fields_of_the_part_from_no_args(folder: Path) -> None:
    target = resolve("ref_pkg.nets:Net", "model.class")
    how = Call(fields={"depth": "theDepth"})
    assert call(target, "model", how, {"width": 1}, fields={"depth": 9}).given == (1, 9, 0.0, None)
    with pytest.raises(ConfigurationError, match=r"model\.args\.depth: is given by `theDepth`: remove it"):
        call(target, "model", how, {"width": 1, "depth": 3}, fields={"depth": 9})


def test_arguments_of_a_function_that_takes_anything(folder: Path) -> None:
    target = resolve("ref_pkg.nets:anything", "model.class")
    assert call(target, "model", HOW, {"a": 1}, offered=OFFERED) == {"a": 1}


def test_arguments_of_a_target_written_in_c() -> None:
    assert call(dict, "model", HOW, {"a": 1}, offered=OFFERED) == {"a": 1}
    USER_PACKAGES.add("builtins")
    with pytest.raises(TypeError) as caught:
        call(int, "model", HOW, {"bas": 3}, offered=OFFERED)
    assert rank_error(caught.value, 0, "").failure_class is FailureClass.USER_CODE_ERROR, "no frame of theirs is there"


def test_a_syntax_error_in_the_users_module_is_the_users(folder: Path) -> None:
    (folder / "ref_pkg" / "typo.py").write_text("def f(:\n")
    with pytest.raises(SyntaxError) as caught:
        resolve("ref_pkg.typo:f", "model.class")
    found = rank_error(caught.value, 0, "")
    assert found.failure_class is FailureClass.USER_CODE_ERROR
    assert "typo.py, line 1" in found.message
