"""The TrainingJob."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from trainmaster_api.status import Status
from trainmaster_api.types import MAX_NAME_LENGTH, NAME_PATTERN, Model, rule_error

from .checkpoint import Checkpoint
from .cluster import Cluster
from .run import Run
from .shorthand import HyperparameterSearch, expanded
from .storage import Storage
from .tracking import MAX_TRACKERS, Tracker
from .training import Training
from .tuning import Tuning


class Spec(Model):
    """Desired state of a TrainingJob."""

    training: Training
    """What to train. Identifies the run and is immutable, except that loop.duration may be raised."""
    tuning_or_none: Annotated[Tuning | None, Field(alias="tuning")] = None
    """A search for hyperparameters whose trials are this job with other values. Without it, and without
    `hyperparameterSearch`, the job is one run."""
    hyperparameter_search: HyperparameterSearch | None = None
    """A search in two lines, in place of `tuning`."""
    tracking: Annotated[list[Tracker], Field(max_length=MAX_TRACKERS)] = []
    """Experiment trackers that the run is reported to. metrics.jsonl in the run's storage is always written and is the
    source of truth."""
    storage: Storage = Storage()
    """Storage of checkpoints, metrics and the model."""
    checkpoint: Checkpoint = Checkpoint()
    """When checkpoints are saved and how many are kept."""
    cluster: Cluster = Cluster()
    """Pods of the job."""
    run: Run = Run()
    """Retries, deadlines and suspension."""

    @property
    def tuning(self) -> Tuning | None:
        """The search, whichever way it is written; None: there is none.

        An invalid job may have a `hyperparameterSearch` and none here: no space follows from it.
        """
        if self.tuning_or_none is not None or self.hyperparameter_search is None:
            return self.tuning_or_none
        return expanded(self.hyperparameter_search, self.training, self.cluster.workers.count)


SEARCHES = ("tuning", "hyperparameterSearch")
"""Fields of a spec that make a search of a job: what remains without them is its plain run."""

OBJECT_META = (
    "name", "namespace", "labels", "annotations", "uid", "generation", "resourceVersion", "creationTimestamp",
    "deletionTimestamp", "deletionGracePeriodSeconds", "finalizers", "generateName", "managedFields", "ownerReferences",
    "selfLink",
)  # fmt: skip
"""Fields of Kubernetes' ObjectMeta."""


class Metadata(Model):
    """The fields of ObjectMeta that Trainmaster reads; others are preserved."""

    model_config = ConfigDict(extra="allow", alias_generator=to_camel, serialize_by_alias=True)

    name: Annotated[str, Field(pattern=NAME_PATTERN, max_length=MAX_NAME_LENGTH)]
    """Name of the job, and prefix of the names of its dependents."""
    namespace: str = "default"
    """Namespace of the job."""
    uid: str = ""
    """UID assigned by the API server; empty on a laptop."""
    generation: int = 0
    """Sequence number of the desired state."""
    labels: dict[str, str] | None = None
    """Labels."""
    annotations: dict[str, str] | None = None
    """Annotations."""

    @model_validator(mode="before")
    @classmethod
    def _is_object_meta(cls, data: Any) -> Any:
        """Reject unknown fields of ObjectMeta, as kubectl does: a misspelled `labels` would be dropped silently."""
        unknown = [str(key) for key in data if key not in OBJECT_META] if isinstance(data, dict) else []
        if unknown:
            near = difflib.get_close_matches(unknown[0].lower(), OBJECT_META, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise rule_error(f"has no field {', '.join(f'`{key}`' for key in unknown)} in Kubernetes{hint}")
        return data


class TrainingJob(Model):
    """One training run, from typed configuration to a stored model."""

    api_version: Literal["trainmaster.dev/v1alpha1"] = "trainmaster.dev/v1alpha1"
    kind: Literal["TrainingJob"] = "TrainingJob"
    metadata: Metadata
    spec: Spec
    status: Status | dict[str, Any] | None = None
