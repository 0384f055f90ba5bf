"""The packages of the job's lock file in a rank: found before those of the image, and after Python's own modules."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

from trainmaster_api import names

_INSTALLED = ("site-packages", "dist-packages")


def use_packages(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let this process and the ones that it starts find the packages. Without any nothing is changed."""
    folder = environment.get(names.ENV_PACKAGES)
    if not folder or folder in sys.path:
        return
    first = next((index for index, path in enumerate(sys.path) if Path(path).name in _INSTALLED), len(sys.path))
    sys.path.insert(first, folder)
    for variable, own in (("PYTHONPATH", folder), ("PATH", f"{folder}/bin")):
        before = environment.get(variable)
        environment[variable] = f"{own}{os.pathsep}{before}" if before else own
