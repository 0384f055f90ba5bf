"""Part of `spec.training.data`: where a table that is larger than memory is kept while it is trained on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainmaster_api.types import Model, Quantity


class Cache(Model):
    """Where a table that is larger than memory is kept, as files that are mapped; it never changes the result."""

    mode: Literal["auto", "always", "never"] = "auto"
    """`auto`: a table is cached if reading it into memory would take more than half of the memory that is available to
    the rank. `always` and `never`: whatever its size."""
    directory: Annotated[str, Field(pattern=r"^/", max_length=1024, examples=["/var/cache/trainmaster"])] | None = None
    """Folder of the cache, which ranks and jobs share that see it. Default: the environment's TRAINMASTER_CACHE, else
    `trainmaster` in XDG_CACHE_HOME, else a folder of the user in the folder for temporary files."""
    size: Quantity | None = None
    """What all tables in the folder may take together. The least recently used that no process uses is removed.
    Default: 100Gi; in the folder for temporary files 15Gi, because that of a pod has 20Gi, for everything."""
