"""A job's data as `trainmaster data` shows it: read, split and checked as before the first step, and not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from trainmaster_api.layout import Fingerprint
from trainmaster_api.spec.job import TrainingJob

from trainmaster_trainer.checkpoint.state import seed_everything
from trainmaster_trainer.references import use_folder

from . import load_data
from .fingerprint import take
from .identity import of_dataset
from .own import IterableRows
from .prepared import Prepared
from .sentences import printable
from .split import SPLITS
from .tables.report import HEADER, Report

MOST_NAMED = 20
Lines = tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """What there is to know about a job's data.

    Attributes:
        name: Of the job.
        label: `data.source` or `data.class`.
        data: The rows as the loop reads them.
        fingerprint: What identifies the data.
    """

    name: str
    label: str
    data: Prepared
    fingerprint: Fingerprint

    @property
    def report(self) -> Report | None:
        """Return the report on the columns of a table; None for other sources."""
        found: Report | None = getattr(self.data.rows, "report", None)
        return found

    def classes(self) -> list[dict[str, Any]]:
        """Return each class with its number of rows in each split, where the class of every row is known."""
        of_rows = getattr(self.data.rows, "row_classes", None)
        found: list[dict[str, Any]] = [{"name": label} for label in self.data.rows.labels]
        if of_rows is not None:
            for split, part in self.data_parts().items():
                counts = np.bincount(of_rows[part], minlength=len(found))
                for each, count in zip(found, counts.tolist(), strict=True):
                    each[split] = count
        return found

    def data_parts(self) -> dict[str, Any]:
        """Return the row numbers of each split."""
        return dict(zip(SPLITS, (self.data.train, self.data.validation, self.data.test), strict=True))

    def heading(self) -> Lines:
        """Return what was read, and how."""
        if self.report is not None:
            return tuple(map(printable, self.report.heading()))
        if isinstance(self.data.rows, IterableRows):
            length = self.data.rows.length
            return (f"{self.label}: a stream of {'unknown length' if length is None else f'{length:,} items'}",)
        shape = " x ".join(map(str, self.data.rows.shape))
        each = f"each of {shape} numbers" if shape else "of several tensors or of different shapes"
        return (f"{self.label}: {len(self.data.rows):,} rows, {each}",)

    def columns(self) -> list[Lines]:
        """Return the cells of the table of columns, the header first; empty for sources that aren't tables."""
        if self.report is None:
            return []
        rows = [each.cells() for each in self.report.columns]
        reasons = [each.why if each.role == "ignore" else None for each in self.report.columns]
        lines = [row if why is None else (*row[:-1], why) for row, why in zip(rows, reasons, strict=True)]
        return [HEADER, *lines]

    def remarks(self) -> Lines:
        """Return what else is to be known: what is left out, the splits, the classes, warnings, the fingerprint."""
        found: list[str] = []
        if self.report is not None:
            found += self.report.remarks(self.report.columns)
            found += [f"left out: {each.what}: {each.why}" for each in self.report.left_out]
        found += [*self.data.notes, *(each for each in self.data.said if each not in self.data.warnings)]
        found += [f"class {_class(each)}" for each in self.classes()[:MOST_NAMED]]
        if len(self.data.rows.labels) > MOST_NAMED:
            found.append(f"and {len(self.data.rows.labels) - MOST_NAMED:,} more classes")
        found += [f"warning: {each}" for each in self.data.warnings]
        return tuple(map(printable, [*found, f"fingerprint: {_identity(self.fingerprint)}"]))

    def wire(self) -> dict[str, Any]:
        """Return everything for programs, as JSON has it."""
        rows = self.data.rows
        return {
            "job": self.name,
            "source": self.label,
            "rows": len(rows),
            "shape": list(rows.shape),
            "features": list(rows.features),
            "classes": self.classes(),
            "table": None if self.report is None else self.report.wire(),
            "split": {
                **{name: len(part) for name, part in self.data_parts().items()},
                "said": [each for each in self.data.said if each not in self.data.warnings],
            },
            "notes": list(self.data.notes),
            "warnings": list(self.data.warnings),
            "fingerprint": self.fingerprint.model_dump(by_alias=True, exclude={"files"}),
        }


def inspect(
    job: TrainingJob, base_dir: Path, env: Mapping[str, str], say: Callable[[str], None] = lambda _: None
) -> Inspection:
    """Return what there is to know about a job's data. Nothing is written, and nothing is compared with a run.

    Args:
        job: A valid job.
        base_dir: What relative paths are relative to.
        env: Environment with the S3 keys.
        say: Takes a sentence on what is being done, whenever that changes and every few seconds while much is read.

    Raises:
        DataError: The data can't be read, or nothing may be trained on it.
        ConfigurationError: It can't feed the specified batches.
    """
    training = job.spec.training
    code = training.code
    use_folder(base_dir / code.path if code is not None and code.path is not None else base_dir)
    say(f"taking the fingerprint of {training.data.label}")
    fingerprint = take(job, base_dir, env)
    seed_everything(training.loop.seed, 0, 0)  # as a run does: a user's class may draw in its constructor
    say(f"reading {training.data.label}")
    data = load_data(job, base_dir, env, say)
    if training.data.source is None:
        fingerprint = of_dataset(fingerprint, getattr(data.rows, "dataset", data.rows))
    return Inspection(job.metadata.name, training.data.label, data, fingerprint)


def _class(found: dict[str, Any]) -> str:
    counts = ", ".join(f"{split} {found[split]:,}" for split in SPLITS if split in found)
    return f"{found['name']}: {counts} rows" if counts else str(found["name"])


def _identity(found: Fingerprint) -> str:
    if not found.digest:
        return "none: a change of this data can't be noticed"
    if found.value:
        return f"{found.short} ({found.value})"
    return f"{found.short} ({found.count:,} file{'' if found.count == 1 else 's'}, {found.size:,} bytes)"
