"""Versions of a Trainer's loggers: a restart continues that of the first process.

Loggers count a version up where they find an older one. ModelCheckpoint keeps its files below it by default, and
forgets which was the best once that folder is another one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write(trainer: Any, file: Path) -> None:
    """Note the versions beside a checkpoint."""
    partial = _beside(file).with_suffix(".tmp")
    partial.write_text(json.dumps([_plain(logger.version) for logger in trainer.loggers]))
    partial.replace(_beside(file))


def use(trainer: Any, file: Path) -> None:
    """Use the versions that were noted, in loggers that would choose one themselves."""
    if not _beside(file).exists():
        return
    for logger, version in zip(trainer.loggers, json.loads(_beside(file).read_text()), strict=False):
        if version is not None and getattr(logger, "_version", "") is None:
            logger._version = version


def _plain(version: Any) -> int | str | None:
    return version if isinstance(version, int | str) else None


def _beside(file: Path) -> Path:
    return file.with_suffix(".json")
