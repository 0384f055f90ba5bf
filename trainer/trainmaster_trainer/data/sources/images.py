"""A folder of images, or an archive of one: a sub-folder's name is the class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from trainmaster_trainer.data.files import Files
from trainmaster_trainer.data.images.archive import open_archive
from trainmaster_trainer.data.images.content import Content, FolderContent
from trainmaster_trainer.data.images.decode import Look
from trainmaster_trainer.data.images.disk import surroundings
from trainmaster_trainer.data.images.folder import Listing, check_images, list_images
from trainmaster_trainer.data.images.rows import ImageRows
from trainmaster_trainer.errors import ConfigurationError

from .base import Request


def build(request: Request) -> ImageRows:
    """List the images and check each.

    Raises:
        DataError: No image in it, images in nested folders, or images that can't be read: all of them at once.
    """
    files, spec = request.files(), request.data
    if request.task.name != "classification":
        raise ConfigurationError(
            f"data.{request.field} images: needs task.name classification; the folder names are the classes"
        )
    content, found = contents(files, request.say, nested=spec.images.nested)
    notes = (*found.notes, *check_images(content, Look.of(spec), request.say, full=spec.images.check == "full"))
    rows = ImageRows(content, torch.tensor(found.classes, dtype=torch.int64), found.labels, spec)
    rows.notes, rows.warnings = notes, found.warnings
    return rows


def contents(files: Files, say: Callable[[str], None] = lambda _: None, *, nested: bool) -> tuple[Content, Listing]:
    """Return the images of a folder or an archive, with their classes."""
    if files.name:
        return open_archive(files, say, nested=nested)
    around = surroundings(files)
    names = [path for path, _ in files.store.list()]
    found = list_images(f"data.{files.field} images:{files.shown}", names, around.folders, nested=nested)
    return FolderContent(files, found.paths), replace(found, notes=(*found.notes, *around.notes()))
