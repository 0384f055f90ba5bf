"""`environment.json` of a run: what each of its attempts was made with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .types import Model


class CodeRecord(Model):
    """The user's code, and the commit that it was made from."""

    sha256: str | None = None
    """Checksum of its archive; None: it is in the image, a git repository, or the folder of the job's file."""
    commit: str | None = None
    """Commit that was checked out where it was packed; None: no repository."""
    dirty: bool | None = None
    """Whether it differed from the commit; None: no repository."""
    untracked: list[str] = []
    """Files of it that git didn't know."""
    diff: str | None = None
    """File in the run's directory with the changes since the commit; None: there are none."""
    image_folder: str | None = None
    """Folder of the image that it is."""


class AttemptRecord(Model):
    """What one attempt was made with. What was not found out, as by an attempt that ended early, is None or empty."""

    attempt: Annotated[int, Field(ge=1)]
    """Number of the attempt."""
    time: str
    """When it began, RFC 3339."""
    code: CodeRecord
    """The user's code."""
    image: str | None = None
    """Image of the pods, as the job or the operator names it; None on a laptop."""
    image_digest: str | None = None
    """Digest by which it can be pulled again, where a tag may have moved since: that of its name, or that of the image
    that all pods run; None: there is none, because no registry has the image, or there are several."""
    image_ids: list[str] = []
    """What the pods run, as the kubelets report it (`imageID`): `repository@sha256:...`; or, of an image that was
    brought to the node without a registry, the checksum of its configuration alone. More than one: pods run different
    images, as a tag was moved meanwhile. Empty: on a laptop, and where the operator didn't answer."""
    python: str = ""
    """Version of Python."""
    platform: str = ""
    """Operating system and architecture."""
    world_size: int
    """Number of ranks."""
    devices: list[str] = []
    """What each rank computes on, by rank."""
    packages: dict[str, str] | None = None
    """Installed packages and their versions, as rank 0 finds them; None: those of the attempt before."""
    other_packages: dict[str, dict[str, str]] = {}
    """Rank -> packages that it has in another version than rank 0; an empty version: it doesn't have them."""


class EnvironmentRecord(Model):
    """All attempts of a run, the oldest first."""

    version: int = 1
    """Version of this format."""
    attempts: list[AttemptRecord] = []
    """What each was made with."""
