"""`spec.tracking`: where the run is shown, besides its own storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from trainmaster_api.types import Model

MAX_TRACKERS = 8


ClassReference = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$",
        max_length=253,
        examples=["my_pkg.trackers:Csv"],
    ),
]
"""`package.module:Name`."""


class Mlflow(Model):
    """Record the run on an MLflow tracking server. A dead server costs a warning, never the run."""

    required_in_cluster: ClassVar[tuple[str, ...]] = ("uri",)

    uri: (
        Annotated[
            str,
            Field(pattern=r"^(https?://.+|sqlite:///.+|file:.+)$", max_length=1024, examples=["http://mlflow:5000"]),
        ]
        | None
    ) = None
    """Tracking server; default: the operator's (in a cluster) or a local sqlite file (on a laptop)."""
    experiment: Annotated[str, Field(min_length=1, max_length=250)] | None = None
    """Name of the experiment; default: `<namespace>/<name>`."""


class Tracker(Model):
    """One tracker: set one member, `mlflow`, or `class` for a tracker of your own."""

    mlflow: Mlflow | None = None
    """MLflow; `mlflow: {}` takes the default server."""
    class_: ClassReference | None = Field(default=None, alias="class")
    """A tracker of your own: `module:Class` of an installed package or, on a laptop, of a file beside the job."""
    args: Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})] | None = (
        None
    )
    """Keyword arguments of `class`."""

    @property
    def kind(self) -> str:
        """Return the member that is set: `mlflow`, `class`."""
        return next(iter(self._set()))

    @property
    def settings(self) -> Any:
        """Return what the set member holds."""
        return next(iter(self._set().values()))

    def _set(self) -> dict[str, Any]:
        found = {name.removesuffix("_"): getattr(self, name) for name in type(self).model_fields if name != "args"}
        return {name: value for name, value in found.items() if value is not None}


KINDS = tuple(name.removesuffix("_") for name in Tracker.model_fields if name != "args")
"""Members of `Tracker`, of which exactly one is set."""


def merge(own: Sequence[Tracker], defaults: Sequence[Tracker]) -> list[Tracker]:
    """Fill in what the entries of a job leave open.

    Args:
        own: The job's trackers.
        defaults: Trackers whose settings stand in for those that an entry of the same kind doesn't have.

    Returns:
        As many entries as `own` has, in its order.
    """
    found = []
    for entry in own:
        default = next((other for other in defaults if other.kind == entry.kind), None)
        if default is None or not isinstance(entry.settings, Model):
            found.append(entry)
            continue
        settings = default.settings.model_copy(update=entry.settings.model_dump(exclude_none=True))
        found.append(entry.model_copy(update={entry.kind: settings}))
    return found


def names(trackers: Sequence[Tracker]) -> list[str]:
    """Return a name for each tracker: its kind or class, numbered from the second one of a name."""
    found: list[str] = []
    for entry in trackers:
        name = entry.class_.rpartition(":")[2] if entry.class_ else entry.kind
        same = sum(other == name or other.startswith(f"{name}-") for other in found)
        found.append(f"{name}-{same + 1}" if same else name)
    return found
