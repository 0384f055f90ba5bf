"""Which files of a folder are images, of which class; everything else is counted, never dropped in silence."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from trainmaster_api.spec.data import SPLIT_WORDS

from trainmaster_trainer.data.files import IMAGE_ENDINGS, is_hidden
from trainmaster_trainer.data.sentences import first_of
from trainmaster_trainer.data.tables.cache import Progress
from trainmaster_trainer.errors import DataError

from .content import Content
from .decode import Header, Look, decode, read_header
from .errors import UnreadableError

_THREADS = 8


@dataclass(frozen=True)
class Listing:
    """Images of a folder.

    Attributes:
        paths: Their paths below it, sorted.
        classes: The class of each, an index into `labels`.
        labels: Names of the classes, sorted.
        notes: What was passed over, a sentence each.
        warnings: What is probably a mistake, a sentence each.
    """

    paths: list[str]
    classes: list[int]
    labels: list[str]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def list_images(
    named: str, names: Iterable[str], folders: Iterable[str] = (), outside: Iterable[str] = (), *, nested: bool
) -> Listing:
    """Sort out the files of a folder.

    Args:
        named: The field and the source, for messages: `data.source images:pictures`.
        names: Paths of all files below it.
        folders: Names of its sub-folders, those without files included.
        outside: Paths of files that aren't below it, and are only counted.
        nested: Whether images in deeper folders belong to the class of their first folder.

    Raises:
        DataError: No image is in a sub-folder, or some are deeper and `nested` is false.
    """
    names = list(names)
    everything = sorted([*names, *outside])
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
            f"{named} has no images in a sub-folder ({_count(loose, 'image')} "
            f"beside the sub-folders, {_count(foreign, 'other file')}); "
            f"expected <class>/<image> with the extensions {endings}"
        )
    if deep and not nested:
        raise DataError(
            f"{named} has {_count(deep, 'image')} in nested folders, such as {deep[0]}; "
            "set data.images.nested: true if the first folder is the class, or make one folder per class"
        )
    labels = sorted({path.partition("/")[0] for path in used})
    number = {label: index for index, label in enumerate(labels)}
    notes = (
        _note(hidden, "hidden file", "passed over"),
        _note(foreign, "file", f"passed over: not an image by its extension ({endings}): {_kinds(foreign)}"),
        _note(loose, "image", "passed over: not in a sub-folder, so of no class"),
    )
    classes = [number[path.partition("/")[0]] for path in used]
    tops = {*folders, *(name.partition("/")[0] for name in names if "/" in name)}
    empty = sorted(name for name in tops.difference(labels) if not is_hidden(name))
    warnings = tuple(filter(None, (_empty(named, empty), _splits(named, labels))))
    return Listing(used, classes, labels, tuple(filter(None, notes)), warnings)


def check_images(
    content: Content, look: Look, say: Callable[[str], None] = lambda _: None, *, full: bool
) -> tuple[str, ...]:
    """Read the header of every image, or decode all of each. Returns what is worth knowing, a sentence each.

    Args:
        content: The images.
        look: How they are decoded.
        say: Takes a sentence on how far this is, every few seconds.
        full: Whether to decode them.

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

    progress = Progress(say, f"checking {content.shown}", amount=lambda total: f"{total:,.0f} images")
    found: list[Header | UnreadableError] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for each in pool.map(look_at, range(len(content))):
            found.append(each)
            progress.at(len(found), len(content))
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


def _empty(named: str, folders: list[str]) -> str:
    if not folders:
        return ""
    are = "folder has no image and is no class" if len(folders) == 1 else "folders have no image and are no classes"
    some = first_of([repr(name) for name in folders], between=", ")
    return f"{named}: {len(folders):,} {are}: {some}. The model has no output for it; add images, or remove it"


def _splits(named: str, labels: list[str]) -> str:
    words = {word for group in SPLIT_WORDS.values() for word in group}
    if len(labels) < 2 or not {label.strip().lower() for label in labels} <= words:
        return ""
    return (
        f"{named}: the classes are called {', '.join(labels)}, as splits are. If each has folders of classes, make "
        "them data.source, data.validationSource and data.testSource"
    )


def _kinds(paths: list[str]) -> str:
    """Return how many files have which extension, the most frequent first."""
    counts = Counter(posixpath.splitext(path)[1].lower() or "without one" for path in paths)
    words = [f"{count:,} {ending}" for ending, count in sorted(counts.items(), key=lambda each: (-each[1], each[0]))]
    return first_of(words, between=", ")


def _note(paths: Sequence[str], what: str, outcome: str) -> str:
    if not paths:
        return ""
    return f"{_count(paths, what)} {outcome}, such as {paths[0]}"


def _count(things: Sequence[object], what: str) -> str:
    return f"{len(things)} {what}{'' if len(things) == 1 else 's'}"
