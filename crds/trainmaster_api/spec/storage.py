"""`spec.storage`: storage of checkpoints, metrics and the model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainmaster_api.address import Uri
from trainmaster_api.types import Model


class Storage(Model):
    """Storage of checkpoints, metrics and the model. Deleting a job never deletes its storage."""

    uri: Uri | None = None
    """`s3://bucket/prefix`, or an absolute path of a shared file system. Default: the operator's, or ./trainmaster-runs
    on a laptop."""
    endpoint: (
        Annotated[str, Field(pattern=r"^https?://[^/]+/?$", max_length=253, examples=["http://minio:9000"])] | None
    ) = None
    """S3 endpoint for MinIO and other S3-compatible servers."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=63, examples=["eu-central-1"])] = "us-east-1"
    """S3 region."""
    credentials_secret: (
        Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253, examples=["minio"])] | None
    ) = None
    """Secret in the job's namespace with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN
    for temporary credentials."""
