"""What a folder on disk has that a list of its files doesn't show: links, and folders without a file."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trainmaster_trainer.data.files import IMAGE_ENDINGS, Files, is_hidden
from trainmaster_trainer.data.sentences import first_of
from trainmaster_trainer.errors import DataError


@dataclass
class Surroundings:
    """A folder on disk, without what is hidden.

    Attributes:
        folders: Names of its sub-folders.
        links: Links to folders, which are read as folders.
        broken: Links to nothing.
        loops: Links to a folder that they are in.
        images: Images, as far as their names say; `places` has device and number of the file behind each.
    """

    folders: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, root: Path) -> Surroundings:
        """Return those of a folder."""
        found = cls()
        found.folders = [name for name in found._walk(root, "", ()) if "/" not in name]
        return found

    def require_readable(self, named: str) -> None:
        """Refuse links that hide images, or show them twice.

        Args:
            named: The field and the source, for the message.

        Raises:
            DataError: A link leads to a folder that it is in, or one that may be an image or a class leads nowhere.
        """
        if self.loops:
            raise DataError(
                f"{named} has links to a folder that they are in, whose images would be there again and again: "
                f"{first_of(self.loops)}. Remove the links"
            )
        lost = [name for name in self.broken if _may_be_data(name)]
        if lost:
            raise DataError(
                f"{named} has {len(lost):,} link{'' if len(lost) == 1 else 's'} to nothing: {first_of(lost)}. Remove "
                "the links, or restore what they lead to: those images, or classes, would be missing"
            )

    def notes(self) -> Iterator[str]:
        """Yield what is worth knowing, a sentence each."""
        if self.links:
            yield f"{_count(self.links, 'link')} to folders read as folders, such as {self.links[0]}"
        if self.broken:
            yield f"{_count(self.broken, 'link')} to nothing passed over, such as {self.broken[0]}"
        same = self._same()
        if same:
            again, first = same[0]
            yield (
                f"{_count(same, 'image')} by a link the same file as another one, such as {again} = {first}: each name "
                "counts as an image"
            )

    def _same(self) -> list[tuple[str, str]]:
        """Return images that are the same file as one before them in the order of names, with that one."""
        if not self.images:
            return []
        order = np.argsort(np.array(self.images), kind="stable")
        places = np.array(self.places, dtype=np.uint64)[order]
        _, first, group = np.unique(places, axis=0, return_index=True, return_inverse=True)
        origin = first[group.reshape(-1)]
        again = np.flatnonzero(origin != np.arange(len(order)))
        return [(self.images[order[row]], self.images[order[origin[row]]]) for row in again.tolist()]

    def _walk(self, folder: Path, start: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
        """Yield the folders below one, by their names from the root."""
        status = folder.stat()
        above = (*above, (status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            name = start + entry.name
            if is_hidden(entry.name):
                continue
            try:
                status = entry.stat()
            except OSError:  # of what isn't a link, reading says why
                if entry.is_symlink():
                    self.broken.append(name)
                continue
            place = (status.st_dev, status.st_ino)
            if not stat.S_ISDIR(status.st_mode):
                if name.lower().endswith(IMAGE_ENDINGS):
                    self.images.append(name)
                    self.places.append(place)
            elif place in above:
                self.loops.append(name)
            else:
                if entry.is_symlink():
                    self.links.append(name)
                yield name
                yield from self._walk(folder / entry.name, f"{name}/", above)


def surroundings(files: Files) -> Surroundings:
    """Return what is around the images of a folder; nothing on S3, which has neither links nor empty folders.

    Raises:
        DataError: A link hides images, or shows them twice.
    """
    if files.store.is_s3:
        return Surroundings()
    found = Surroundings.of(files.store.root)
    found.require_readable(f"data.{files.field} images:{files.shown}")
    return found


def _may_be_data(name: str) -> bool:
    """Return whether a link to nothing may stand for an image of a class, or for a folder."""
    suffix = posixpath.splitext(name)[1]
    return not suffix or (name.lower().endswith(IMAGE_ENDINGS) and "/" in name)


def _count(things: list[str] | list[tuple[str, str]], what: str) -> str:
    return f"{len(things):,} {what}{'' if len(things) == 1 else 's'}"
