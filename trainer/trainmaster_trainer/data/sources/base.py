"""What a source is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainmaster_api.spec.data import Data
from trainmaster_api.spec.storage import Storage
from trainmaster_api.spec.task import Task

from trainmaster_trainer.data.files import Files


@dataclass(frozen=True)
class Request:
    """What rows are made from.

    Attributes:
        address: `data.source` without the name of the source and its colon.
        data: `spec.training.data`.
        task: `spec.training.task`: whether targets are classes or numbers.
        storage: `spec.storage`: endpoint, region and keys for s3:// addresses.
        base_dir: What relative paths are relative to.
        env: Environment with the S3 keys.
        say: Takes a sentence on what is being done while the data is read.
    """

    address: str
    data: Data
    task: Task
    storage: Storage
    base_dir: Path
    env: Mapping[str, str]
    say: Callable[[str], None] = lambda _: None

    def files(self) -> Files:
        """Return the files behind the address."""
        return Files.open(self.address, self.storage, self.base_dir, self.env, is_table=self.data.is_table)
