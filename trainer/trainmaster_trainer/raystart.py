"""`ray start` and `ray.init` for machines that are slow or busy: `python -m trainmaster_trainer.raystart start ...`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray._private import services

PATIENCE_SECONDS = 120.0
_TICK = 0.2


def be_patient() -> None:
    """Give a raylet that starts two minutes to register instead of 30 s, for which Ray has no setting.

    Ray asks for the node in a loop and looks at its clock after each refusal; here the question itself waits.
    """
    ask: Callable[[str, str], Any] = services.get_node

    def get_node(gcs_address: str, node_id: str) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return ask(gcs_address, node_id)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_TICK)

    services.get_node = get_node


def start() -> None:
    """`ray start` with patience, and without the Ray Client server: a process that nobody here speaks to.

    It comes wherever the client's libraries are installed, and no port means the default one.
    """
    be_patient()
    from ray.scripts import scripts  # a second of imports that the driver, who wants patience too, can spare

    unwanted = ImportError("no Ray Client is wanted here")
    scripts.get_ray_client_dependency_error = lambda: unwanted  # type: ignore[attr-defined]
    scripts.main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    start()
