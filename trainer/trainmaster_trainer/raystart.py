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


if __name__ == "__main__":
    from ray.scripts.scripts import main

    be_patient()
    main()  # type: ignore[no-untyped-call]
