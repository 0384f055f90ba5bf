"""`spec.tracking`: experiment trackers that the run is reported to, in addition to its own storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator

from trainmaster_api.types import Model, rule_error

from .part import Reference

MAX_TRACKERS = 8


class Mlflow(Model):
    """Records the run on an MLflow tracking server. An unavailable server never fails the run."""

    required_in_cluster: ClassVar[tuple[str, ...]] = ("uri",)

    uri: (
        Annotated[
            str,
            Field(pattern=r"^(https?://.+|sqlite:///.+|file:.+)$", max_length=1024, examples=["http://mlflow:5000"]),
        ]
        | None
    ) = None
    """Tracking server URI. Default: the operator's (in a cluster) or a local SQLite file (on a laptop)."""
    experiment: Annotated[str, Field(min_length=1, max_length=250)] | None = None
    """Name of the experiment. Default: `<namespace>/<name>`."""


class Tracker(Model):
    """A tracker: `mlflow`, or the `class` of your own."""

    EXACTLY_ONE: ClassVar[tuple[str, ...]] = ("mlflow", "class")

    mlflow: Mlflow | None = None
    """MLflow; `mlflow: {}` uses the default server."""
    reference: Reference = None
    """Reference to your own tracker, `package.module:Name`, in the job's folder or in an installed package."""
    args: dict[str, Any] | None = None
    """Keyword arguments of the class."""

    @field_validator("args")
    @classmethod
    def _go_with_a_class(cls, args: dict[str, Any] | None, info: ValidationInfo) -> dict[str, Any] | None:
        if args is not None and info.data.get("mlflow") is not None:
            raise rule_error("are those of `class`: a tracker that we ship has its settings under its own name")
        return args

    @property
    def kind(self) -> str:
        """The member that is set: `mlflow`, `class`."""
        return (
            "class" if self.reference is not None else next(kind for kind in KINDS if getattr(self, kind) is not None)
        )

    @property
    def settings(self) -> Model | None:
        """What the set member holds; None for a class."""
        found: Model | None = getattr(self, self.kind) if self.reference is None else None
        return found


KINDS = tuple(kind for kind in Tracker.EXACTLY_ONE if kind != "class")
"""Built-in trackers."""


def merge(own: Sequence[Tracker], defaults: Sequence[Tracker]) -> list[Tracker]:
    """Return the entries of a job with their missing settings filled in.

    Args:
        own: The job's trackers.
        defaults: Trackers whose settings stand in for those that an entry of the same kind doesn't have.

    Returns:
        As many entries as `own` has, in its order.
    """
    found = []
    for entry in own:
        default = next((other for other in defaults if other.kind == entry.kind), None)
        if default is None or default.settings is None or entry.settings is None:
            found.append(entry)
            continue
        settings = default.settings.model_copy(update=entry.settings.model_dump(exclude_none=True, by_alias=False))
        found.append(entry.model_copy(update={entry.kind: settings}))
    return found


def names(trackers: Sequence[Tracker]) -> list[str]:
    """Return a name for each tracker: its kind or class, numbered from the second one of a name."""
    found: list[str] = []
    for entry in trackers:
        name = entry.reference.rpartition(":")[2] if entry.reference else entry.kind
        same = sum(other == name or other.startswith(f"{name}-") for other in found)
        found.append(f"{name}-{same + 1}" if same else name)
    return found
