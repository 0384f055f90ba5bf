"""ISO 8601 dates and times: from text to microseconds since 1970, in UTC where a zone is written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

PATTERN = (
    r"^(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
    r"(?:[T ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?)?"
    r" ?(?P<zone>Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?$"
)
HEAD = 64
"""Cells that decide whether a column may be one of times."""
_SECOND = 1_000_000

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Times:
    """Cells read as times.

    Attributes:
        values: `timestamp[us]`; anything where `is_time` is false.
        is_time: Which cells are a time that exists.
        is_zoned: Which have a zone.
        cut: Number of cells with more than six decimals.
    """

    values: pa.Array
    is_time: Mask
    is_zoned: Mask
    cut: int


def looks_like_time(cells: pa.Array) -> bool:
    """Return whether one of a column's first cells, which aren't null, has the form of a time."""
    return bool(pc.any(pc.match_substring_regex(cells, PATTERN)).as_py())


def times_of(cells: pa.Array) -> Times:
    """Return text read as times.

    Args:
        cells: Text without nulls.
    """
    parts = pc.extract_regex(cells, PATTERN)
    has_form = parts.is_valid().to_numpy(zero_copy_only=False)

    def field(name: str) -> pa.Array:
        return pc.fill_null(pc.struct_field(parts, name), "")

    def whole(name: str) -> Ints:
        return _int(field(name))

    year, month, day = whole("year"), whole("month"), whole("day")
    hour, minute, second = whole("hour"), whole("minute"), whole("second")
    months = (np.clip(year, 1, 9999) - 1970) * 12 + np.clip(month, 1, 12) - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]")
    length = ((months + 1).astype("datetime64[M]").astype("datetime64[D]") - first).astype(np.int64)
    exists = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= length)
    exists &= (hour <= 23) & (minute <= 59) & (second <= 59)
    nanos = _int(pc.utf8_rpad(field("fraction"), 9, "0"))
    zone = field("zone")
    zone_seconds, zone_exists = _zone(zone)
    seconds = (first.astype(np.int64) + day - 1) * 86400 + hour * 3600 + minute * 60 + second - zone_seconds
    micros = seconds * _SECOND + nanos // 1000
    is_time = has_form & exists & zone_exists
    is_zoned = pc.not_equal(zone, "").to_numpy(zero_copy_only=False)
    cut = int(np.count_nonzero(is_time & (nanos % 1000 != 0)))
    return Times(pa.array(micros).cast(pa.timestamp("us")), is_time, is_zoned, cut)


def _zone(zone: pa.Array) -> tuple[Ints, Mask]:
    """Return seconds east of UTC, and whether there is such a zone."""
    digits = pc.replace_substring(zone, ":", "")
    hours = _int(pc.utf8_slice_codeunits(digits, 1, 3))
    minutes = _int(pc.utf8_slice_codeunits(digits, 3, 5))
    sign = np.where(pc.starts_with(digits, "-").to_numpy(zero_copy_only=False), -1, 1)
    return sign * (hours * 3600 + minutes * 60), (hours <= 23) & (minutes <= 59)


def _int(digits: pa.Array) -> Ints:
    """Return digits as numbers; none: 0."""
    filled = pc.if_else(pc.equal(digits, ""), "0", digits)
    found: Ints = filled.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return found
