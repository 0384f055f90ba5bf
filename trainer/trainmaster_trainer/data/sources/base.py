"""What a source is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
        field: The field that the address is of, for messages: `source`, `validationSource` or `testSource`.
        say: Takes a sentence on what is being done while the data is read.
    """

    address: str
    data: Data
    task: Task
    storage: Storage
    base_dir: Path
    env: Mapping[str, str]
    field: str = "source"
    say: Callable[[str], None] = lambda _: None

    def files(self) -> Files:
        """Return the files behind the address."""
        return Files.open(
            self.address, self.storage, self.base_dir, self.env, is_table=self.data.is_table, field=self.field
        )

    def every(self) -> dict[str, Request]:
        """Return a request for each source of the job by its field, this one first.

        Each is read by the same rules: the settings of `data` are those of all sources.
        """
        own = {}
        for field, source in self.data.own_sources.items():
            data = self.data.of_source(source)
            own[field] = replace(self, address=address_of(data), data=data, field=field)
        return {self.field: replace(self, data=self.data.of_source(self.data.source or "")), **own}


def address_of(data: Data) -> str:
    """Return `data.source` without the name of the source and its colon; a table has none."""
    source = data.source or ""
    return source if data.is_table else source.partition(":")[2]
