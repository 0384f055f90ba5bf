"""`spec.tracking`: views of the run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainmaster_api.types import Model


class Mlflow(Model):
    """Record the run on an MLflow tracking server. A dead server costs a warning, never the run."""

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


class Tracking(Model):
    """Views of the run. metrics.jsonl in the run's storage is always written and is the truth."""

    mlflow: Mlflow | None = None
    """MLflow; `mlflow: {}` takes the default server."""
