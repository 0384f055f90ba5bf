"""The TrainingJob itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from trainmaster_api.status import Status
from trainmaster_api.types import MAX_NAME_LENGTH, NAME_PATTERN, Model

from .checkpoint import Checkpoint
from .cluster import Cluster
from .run import Run
from .storage import Storage
from .tracking import MAX_TRACKERS, Tracker
from .training import Training


class Spec(Model):
    """What is trained, where results go, where it runs."""

    training: Training
    """What is trained; fixes the run's identity and can't be changed afterwards."""
    tracking: Annotated[list[Tracker], Field(max_length=MAX_TRACKERS)] = []
    """Where the run is shown. metrics.jsonl in the run's storage is always written and is the source of truth."""
    storage: Storage = Storage()
    """Where results go."""
    checkpoint: Checkpoint = Checkpoint()
    """When state is saved."""
    cluster: Cluster = Cluster()
    """Where it runs."""
    run: Run = Run()
    """How it is supervised."""


class Metadata(Model):
    """The part of ObjectMeta that we read; the rest is kept as it is."""

    model_config = ConfigDict(extra="allow", alias_generator=to_camel, serialize_by_alias=True)

    name: Annotated[str, Field(pattern=NAME_PATTERN, max_length=MAX_NAME_LENGTH)]
    """Name of the job; its children's names begin with it."""
    namespace: str = "default"
    """Namespace."""
    uid: str = ""
    """UID given by the API server; empty on a laptop."""
    generation: int = 0
    """Counts changes of the spec."""


class TrainingJob(Model):
    """One training run, from typed configuration to a stored model."""

    api_version: Literal["trainmaster.dev/v1alpha1"] = "trainmaster.dev/v1alpha1"
    kind: Literal["TrainingJob"] = "TrainingJob"
    metadata: Metadata
    spec: Spec
    status: Status | dict[str, Any] | None = None
