"""Which files differ between the code of a job in the cluster and the code that is to be submitted."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

from trainmaster_api.archive import Archive, ArchiveError, changes
from trainmaster_api.packing import listing_of

from trainmaster_cli.errors import UserError

from .api import Object


def changed_files(existing: Object, archive: Archive | None, stored: Callable[[str], bytes | None]) -> list[str]:
    """Return a line for each file that differs; none where the other code can't be looked at from here.

    Args:
        existing: The job in the cluster.
        archive: The code that is to be submitted; None: it doesn't travel from here.
        stored: Returns an archive in storage by its address.
    """
    code = existing.get("spec", {}).get("training", {}).get("code") or {}
    old = code.get("inline") or code.get("stored") or {}
    if archive is None or not old or old.get("sha256") == archive.sha256:
        return []
    try:
        data = base64.b64decode(old["data"]) if "data" in old else stored(old["uri"])
        return [] if data is None else changes(listing_of(data, old["sha256"]), archive.listing)
    except (ArchiveError, UserError, binascii.Error, KeyError):
        return []
