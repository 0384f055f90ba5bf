"""What a process runs on: Python, platform, installed packages, device. Gathered here, and judged by the driver."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from trainmaster_api import names

from .ipc.messages import Surroundings

_MOST_PACKAGES = 5000
_CPU_FIELDS = ("model name", "Hardware", "Processor")


def of_this_process(environment: Mapping[str, str] = os.environ) -> Surroundings:
    """Return Python, platform and packages; takes 0.2 s."""
    return Surroundings(python=platform.python_version(), platform=platform.platform(), packages=packages(environment))


def packages(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the version of each installed package; of two with the same name the one that is imported."""
    own = environment.get(names.ENV_PACKAGES)
    found: dict[str, str] = {}
    for each in distributions(path=[*([own] if own else []), *sys.path]):
        name = each.metadata["Name"] if each.metadata is not None else None
        if name and len(found) < _MOST_PACKAGES:
            found.setdefault(name, each.version)
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def device_name(device: Any) -> str:
    """Return what a rank's device is called: the GPU's name, or the processor's."""
    torch = sys.modules.get("torch")  # loaded if there is a device of it; this module knows no framework
    if torch is not None and getattr(device, "type", "") == "cuda":
        return str(torch.cuda.get_device_name(device))
    return _processor()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in values.items()}
    return next((named[field] for field in _CPU_FIELDS if named.get(field)), platform.processor() or platform.machine())
