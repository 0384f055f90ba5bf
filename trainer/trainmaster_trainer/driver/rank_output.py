"""What the ranks of a laptop print: shown on the terminal, and kept beside the run's results."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.text import Text
from trainmaster_api.layout import log_path

from trainmaster_trainer.logs.settings import CollectorProcess
from trainmaster_trainer.storage.store import Store

_LOG = "ranks"
# gloo greets on standard output whenever a group is made, which says nothing to anybody
_NOISE = "[Gloo] Rank "


@contextlib.contextmanager
def collected(
    scratch: Path, environment: Mapping[str, str], run: Store, attempt: int, console: Console
) -> Iterator[dict[str, str]]:
    """Show and keep what ranks print; yields the environment in which the driver has to be started.

    Args:
        scratch: Folder with a short path.
        environment: Of the driver.
        run: Store of the run, which has `logs/a<attempt>/ranks.log` afterwards.
        attempt: Number of the attempt.
        console: Where the lines are shown.
    """
    reader, writer = os.pipe()
    try:
        collector = CollectorProcess(
            scratch,
            environment,
            storage_uri=run.uri,
            path=log_path(attempt, _LOG),
            endpoint=run.endpoint,
            region=run.region,
            output=writer,
        )
    finally:
        os.close(writer)
    shown = threading.Thread(target=_show, args=[reader, console], daemon=True)
    shown.start()
    try:
        yield {**environment, **collector.environment()}
    finally:
        collector.end()
        shown.join(1.0)


def _show(reader: int, console: Console) -> None:
    with os.fdopen(reader, errors="replace") as lines:
        for line in lines:
            if _NOISE not in line:
                console.print(Text.from_ansi(line.rstrip("\n")))
