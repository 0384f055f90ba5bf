"""How the parameters of a user's program reach it: on its command line or in its environment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from trainmaster_api.spec.own import Script

ENV_ALL = "TRAINMASTER_PARAMETERS"
"""All of them as JSON, for `trainmaster.parameters()`."""
NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with dotted names in place of objects within objects, in alphabetical order.

    The order of a map isn't kept by Kubernetes, so none may follow from it.
    """
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, Mapping) and value:
            found |= {f"{name}.{below}": each for below, each in flat(value).items()}
        else:
            found[name] = value
    return dict(sorted(found.items()))


def arguments(script: Script) -> list[str]:
    """Return the whole command line of a program, without its name."""
    how, found = script.parameters_as, list(script.args)
    for name, value in flat(script.parameters).items():
        if how == "args":
            found += [f"--{name}", text(value)]
        elif how == "dashedArgs":
            found += [f"--{name.replace('_', '-')}", text(value)]
        elif how == "overrides":
            found.append(f"{name}={text(value)}")
    return found


def environment(script: Script) -> dict[str, str]:
    """Return the variables by which a program finds its parameters."""
    found = {ENV_ALL: json.dumps(script.parameters, sort_keys=True)} if script.parameters else {}
    if script.parameters_as == "env":
        found |= {variable(name): text(value) for name, value in flat(script.parameters).items()}
    return found


def variable(name: str) -> str:
    """Return the name of a parameter's variable."""
    return f"TRAINMASTER_PARAM_{re.sub(r'[^A-Za-z0-9]', '_', name).upper()}"


def text(value: Any) -> str:
    """Return a value as a program reads it: text as it is, anything else as JSON has it."""
    return value if isinstance(value, str) else json.dumps(value)
