"""How the parameters of a program reach it."""

from __future__ import annotations

import json

import pytest
from trainmaster_api.parameters import arguments, environment, flat
from trainmaster_api.spec.own import Script

PARAMETERS = {"lr": 1e-05, "batch_size": 32, "amp": True, "model": {"name": "vit", "widths": [8, 16]}, "note": None}


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("args", ["--amp", "true", "--batch_size", "32", "--lr", "1e-05", "--model.name", "vit",
                  "--model.widths", "[8, 16]", "--note", "null"]),
        ("dashedArgs", ["--amp", "true", "--batch-size", "32", "--lr", "1e-05", "--model.name", "vit",
                        "--model.widths", "[8, 16]", "--note", "null"]),
        ("overrides", ["amp=true", "batch_size=32", "lr=1e-05", "model.name=vit", "model.widths=[8, 16]", "note=null"]),
        ("env", []),
    ],
)  # fmt: skip
def test_command_line(how, expected):
    script = Script.model_validate({"path": "t.py", "args": ["-v"], "parameters": PARAMETERS, "parametersAs": how})
    assert arguments(script) == ["-v", *expected]


def test_environment():
    script = Script.model_validate({"path": "t.py", "parameters": PARAMETERS, "parametersAs": "env"})
    found = environment(script)
    assert json.loads(found.pop("TRAINMASTER_PARAMETERS")) == PARAMETERS
    assert found == {
        "TRAINMASTER_PARAM_AMP": "true", "TRAINMASTER_PARAM_BATCH_SIZE": "32", "TRAINMASTER_PARAM_LR": "1e-05",
        "TRAINMASTER_PARAM_MODEL_NAME": "vit", "TRAINMASTER_PARAM_MODEL_WIDTHS": "[8, 16]",
        "TRAINMASTER_PARAM_NOTE": "null",
    }  # fmt: skip
    assert environment(Script(path="t.py")) == {}


def test_order_is_that_of_the_names():
    assert list(flat({"b": 1, "a": {"d": 2, "c": 3}})) == ["a.c", "a.d", "b"]
