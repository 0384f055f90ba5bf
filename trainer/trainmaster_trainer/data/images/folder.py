"""Which files of a folder are images, of which class; everything else is counted, never dropped in silence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from trainmaster_trainer.data.files import IMAGE_ENDINGS, is_hidden
from trainmaster_trainer.data.sentences import first_of
from trainmaster_trainer.errors import DataError

from .content import Content
from .decode import Header, Look, UnreadableError, decode, read_header

_THREADS = 8


@dataclass(frozen=True)
class Listing:
    """Images of a folder.

    Attributes:
        paths: Their paths below it, sorted.
        classes: The class of each, an index into `labels`.
        labels: Names of the classes, sorted.
        notes: What was passed over, a sentence each.
    """

    paths: list[str]
    classes: list[int]
    labels: list[str]
    notes: tuple[str, ...]


def list_images(shown: str, names: Iterable[str], *, nested: bool) -> Listing:
    """Sort out the files of a folder.

    Args:
        shown: The folder, for messages.
        names: Paths of all files below it.
        nested: Whether images in deeper folders belong to the class of their first folder.

    Raises:
        DataError: No image is in a sub-folder, or some are deeper and `nested` is false.
    """
    everything = sorted(names)
    seen = [name for name in everything if not is_hidden(name)]
    hidden = [name for name in everything if is_hidden(name)]
    images = [name for name in seen if name.lower().endswith(IMAGE_ENDINGS)]
    foreign = [name for name in seen if not name.lower().endswith(IMAGE_ENDINGS)]
    loose = [name for name in images if "/" not in name]
    deep = [name for name in images if name.count("/") > 1]
    used = [name for name in images if "/" in name]
    endings = ", ".join(IMAGE_ENDINGS)
    if not used:
        raise DataError(
            f"data.source images:{shown} has no images in a sub-folder ({_count(loose, 'image')} "
            f"beside the sub-folders, {_count(foreign, 'other file')}); "
            f"expected <class>/<image> with the extensions {endings}"
        )
    if deep and not nested:
        raise DataError(
            f"data.source images:{shown} has {_count(deep, 'image')} in nested folders, such as {deep[0]}; "
            "set data.images.nested: true if the first folder is the class, or make one folder per class"
        )
    labels = sorted({path.partition("/")[0] for path in used})
    number = {label: index for index, label in enumerate(labels)}
    notes = (
        _note(hidden, "hidden file", "passed over"),
        _note(foreign, "file", f"passed over: not an image by its extension ({endings})"),
        _note(loose, "image", "passed over: not in a sub-folder, so of no class"),
    )
    return Listing(used, [number[path.partition("/")[0]] for path in used], labels, tuple(filter(None, notes)))


def check_images(content: Content, look: Look, *, full: bool) -> tuple[str, ...]:
    """Read the header of every image, or decode all of each. Returns what is worth knowing, a sentence each.

    Raises:
        DataError: Some can't be read; the first ten are named.
    """

    def look_at(index: int) -> Header | UnreadableError:
        try:
            if not full:
                return read_header(content.header(index), look)
            source = content.read(index)
            decode(source, look)
            return read_header(source, look)
        except UnreadableError as error:
            return error

    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(look_at, range(len(content))))
    broken = [(index, error) for index, error in enumerate(found) if isinstance(error, UnreadableError)]
    if broken:
        first = first_of([f"{content.where(index)}: {error}" for index, error in broken])
        raise DataError(f"{_count(broken, 'image')} of {len(found)} can't be read: {first}. Replace or remove them")
    headers = [(content.name(index), header) for index, header in enumerate(found) if isinstance(header, Header)]
    notes = (
        _note(
            [name for name, header in headers if header.is_animated],
            "animation",
            "of which only the first frame is used",
        ),
        _note(
            [name for name, header in headers if header.is_transparent],
            "transparent image",
            "shown on {} (data.images.background)".format("#{:02x}{:02x}{:02x}".format(*look.background)),
        ),
    )
    return tuple(filter(None, notes))


def _note(paths: Sequence[str], what: str, outcome: str) -> str:
    if not paths:
        return ""
    return f"{_count(paths, what)} {outcome}, such as {paths[0]}"


def _count(things: Sequence[object], what: str) -> str:
    return f"{len(things)} {what}{'' if len(things) == 1 else 's'}"
