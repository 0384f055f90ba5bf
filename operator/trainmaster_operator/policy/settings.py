"""What an operator fills in where a TrainingJob is silent, and what it allows."""

from __future__ import annotations

from dataclasses import dataclass

from trainmaster_api.spec.tracking import Tracker


@dataclass(frozen=True, slots=True)
class Settings:
    """The operator's defaults.

    Attributes:
        image: Trainer image of jobs without `cluster.image`.
        storage_uri: Storage of jobs without `storage.uri`. The three fields below go with it: a job with a storage of
            its own takes none of them.
        storage_endpoint: S3 endpoint of that storage.
        storage_region: S3 region of that storage.
        storage_credentials_secret: Secret, by name, in the job's namespace.
        default_tracking: Settings that complete those of a job's trackers.
        allow_host_path: Whether pod templates may have hostPath volumes.
        progress_url: Where the driver posts its progress; goes into the job's Secret.
        progress_ca: PEM of the CA that signed the endpoint's certificate; goes into the job's Secret.
    """

    image: str | None = None
    storage_uri: str | None = None
    storage_endpoint: str | None = None
    storage_region: str | None = None
    storage_credentials_secret: str | None = None
    default_tracking: tuple[Tracker, ...] = ()
    allow_host_path: bool = False
    progress_url: str = ""
    progress_ca: str = ""
