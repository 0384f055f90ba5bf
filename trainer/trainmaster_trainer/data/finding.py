"""What a check of a split table looks at, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from .division import Division
from .duplicates import codes_of
from .tables.table import Column, Table


@dataclass(frozen=True)
class Finding:
    """Something that a check found.

    Attributes:
        severity: `refuse`: nothing is trained on this; `warn`: it is said, and training goes ahead.
        sentence: What it is, and what to do next.
        details: The same for programs, as JSON has it: `kind`, columns, counts, scores.
    """

    severity: Literal["refuse", "warn"]
    sentence: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checked:
    """A table as the checks look at it."""

    table: Table
    target: Column
    features: list[Column]
    division: Division
    is_classification: bool
    group: str | None
    time: str | None

    def classes(self) -> tuple[npt.NDArray[np.int64], list[str | None]]:
        """Return the class of each row as its position in the names of the classes; the name of null is None."""
        names = pc.unique(self.target.values).to_pylist()
        return codes_of(self.target.values), [None if name is None else str(name) for name in names]
