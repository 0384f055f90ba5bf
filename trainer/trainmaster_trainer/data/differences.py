"""What has changed between two fingerprints of data, in words."""

from __future__ import annotations

import hashlib

from trainmaster_api.layout import DataFile, Fingerprint, Lines

from .sentences import MOST_NAMED

_NONE = Fingerprint(source="", digest=hashlib.sha256().hexdigest())  # of a source that isn't there: no files


def what_changed(old: Fingerprint, new: Fingerprint) -> list[str]:
    """Return what differs, one clause for each file that was added, removed, renamed or changed; empty: nothing.

    Args:
        old: As it was; one without a digest can't be compared with anything.
        new: As it is, taken with `old` known.
    """
    if not old.digest or old.digest == new.digest:
        return []
    if old.sources or new.sources:
        parts = by_field(old), by_field(new)
        return [
            f"data.{field} {change}"
            for field in dict.fromkeys([*parts[0], *parts[1]])
            for change in what_changed(*(part.get(field, _NONE) for part in parts))
        ]
    if old.value or not new.digest:
        return [f"{new.source}: {new.value or 'no fingerprint'}, before {old.value or old.short}"]
    if old.count != len(old.files) or new.count != len(new.files):  # too many to list
        same = (old.count, old.size) == (new.count, new.size)
        text = f"{new.count:,} files with {new.size:,} bytes"
        return [f"{text}, not the same as before" if same else f"{text}, before {old.count:,} with {old.size:,} bytes"]
    before, after = ({file.path: file for file in each.files} for each in (old, new))
    removed = {path: file for path, file in before.items() if path not in after}
    changes = {}
    for path, file in after.items():
        if path in before:
            if not is_same(before[path], file):
                changes[path] = _difference(before[path], file)
            continue
        origin = next((name for name, gone in removed.items() if gone.sha256 and gone.sha256 == file.sha256), None)
        if origin is None:
            changes[path] = f"added ({_amount(file)})"
        else:
            del removed[origin]
            changes[path] = f"renamed, before {origin}"
    changes |= {path: f"removed ({_amount(file)})" for path, file in removed.items()}
    return [f"{path}: {change}" for path, change in sorted(changes.items())]


def by_field(found: Fingerprint) -> dict[str, Fingerprint]:
    """Return the fingerprints of the sources by field."""
    return found.sources or {"source": found}


def shown(changes: list[str], most: int = MOST_NAMED) -> list[str]:
    """Return the first changes and the number of the others."""
    more = len(changes) - most
    return [*changes[:most], f"and {more:,} more"] if more > 0 else changes


def is_same(old: DataFile, new: DataFile) -> bool:
    """Compare the content where both were read, else size and time or ETag."""
    if old.sha256 and new.sha256:
        return old.sha256 == new.sha256
    return (old.size, old.version) == (new.size, new.version)


def _difference(old: DataFile, new: DataFile) -> str:
    if new.version == "gone":
        return f"removed ({_amount(old)})"
    parts = [
        f"{new.size:,} bytes, before {old.size:,}" if new.size != old.size else f"other content, {new.size:,} bytes"
    ]
    if not (old.sha256 and new.sha256) and new.size == old.size:
        parts = [f"written at another time, {new.size:,} bytes ({new.version}, before {old.version})"]
    if old.rows is not None and new.rows is not None:
        parts.append(f"{new.rows:,} rows" + (f", before {old.rows:,}" if new.rows != old.rows else ""))
    if old.lines and new.lines:
        parts.append(_line_difference(old.lines, new.lines))
    return "; ".join(parts)


def _line_difference(old: Lines, new: Lines) -> str:
    counts = f"{new.count:,} lines" + (f", before {old.count:,}" if new.count != old.count else "")
    size = old.per_block
    pairs = list(zip(old.blocks, new.blocks, strict=False))
    # the last block of the shorter file may only be incomplete
    shorter = min(old.count, new.count)
    whole = shorter // size if old.count != new.count else len(pairs)
    differing = [index for index, (before, after) in enumerate(pairs[:whole]) if before != after]
    if not differing:
        return counts
    first, last = differing[0] * size + 1, min((differing[-1] + 1) * size, shorter)
    if old.count != new.count:  # after a line that was inserted all others differ from what was there
        return f"{counts}; the first that differs is {_range(first, min(first + size - 1, last))}"
    number = f"{len(differing):,} of " if size == 1 and len(differing) < last - first + 1 else ""
    return f"{counts}; {number}{_range(first, last)} differ{'s' if first == last else ''}"


def _range(first: int, last: int) -> str:
    return f"line {first:,}" if first == last else f"lines {first:,} to {last:,}"


def _amount(file: DataFile) -> str:
    if file.rows is not None:
        return f"{file.rows:,} rows, {file.size:,} bytes"
    return f"{file.lines.count:,} lines, {file.size:,} bytes" if file.lines else f"{file.size:,} bytes"
