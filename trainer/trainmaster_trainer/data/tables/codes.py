"""How a column of each role becomes features: fitted on the train split, in float64, and cast to float32 at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from trainmaster_api.spec.table import Missing, Role

from trainmaster_trainer.errors import DataError

from .cells import Codes, Floats, categories, integers, is_missing, numbers, shifted
from .roles import Planned
from .table import Column, ColumnType

DAY = 86_400_000_000  # microseconds
_BLOCK = 1 << 22  # values that are looked at together
Out = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NumericCode:
    """A number: ((value - offset) - mean) / std.

    Attributes:
        name: Of the column; `type` is the type that it was trained with.
        missing: What is done with missing values.
        offset: A value of the train split, its lower median, subtracted exactly: an int for whole numbers.
        mean: Mean of the train split's values minus offset; `std` their standard deviation, 1 for a constant.
        fill: Median of the train split's values minus offset, for missing values; None if they aren't filled in.
        indicator: Whether a second feature is 1 where the value was missing and 0 elsewhere.
        normalize: Whether it is scaled: `data.normalize`.
    """

    ROLE: ClassVar[Role] = "numeric"
    name: str
    type: ColumnType
    missing: Missing
    offset: float
    mean: float
    std: float
    fill: float | None
    indicator: bool
    normalize: bool = True

    @classmethod
    def fit(cls, planned: Planned, train: Codes, *, normalize: bool) -> NumericCode:
        """Measure the train split."""
        column = planned.column
        present = _present(planned, train)
        offset: float = 0
        if column.type is ColumnType.INTEGER:
            if normalize and len(present):
                offset = int(_lower_median(integers(column)[present]))
            values = shifted(column, offset)[present]
        else:  # read once: the difference is that of `shifted`
            values = numbers(column)[present]
            if normalize and len(present):
                offset = float(_lower_median(values.copy()))
            values -= offset
        mean, std = _moments(values) if normalize else (0.0, 1.0)
        is_filled = planned.missing == "impute" and len(values)
        fill = float(np.median(values, overwrite_input=True)) if is_filled else None
        return cls(column.name, column.type, planned.missing, offset, mean, std, fill, planned.indicator, normalize)

    def features(self) -> list[str]:
        """Return the column's name, and that of the indicator."""
        return [self.name, f"{self.name} is missing"] if self.indicator else [self.name]

    @property
    def is_scaled(self) -> bool:
        """Whether the number is changed; with `normalize: false` it isn't."""
        return self.normalize

    def write(self, column: Column, out: Out) -> None:
        """Write the scaled number."""
        values = shifted(column, self.offset)
        absent = np.isnan(values)
        if self.fill is not None:
            values[absent] = self.fill
        out[:, 0] = (values - self.mean) / self.std
        if self.indicator:
            out[:, 1] = absent

    def words(self) -> str:
        """Say mean and standard deviation."""
        scaled = f"scaled: mean {self.offset + self.mean:.6g}, std {self.std:.6g}"
        return (scaled if self.is_scaled else "as it is") + _filled(
            self.missing, None if self.fill is None else f"{self.offset + self.fill:.6g}", self.indicator
        )


@dataclass(frozen=True)
class BooleanCode:
    """0 or 1; a missing value is filled in with the more frequent one, 0 if both are equally frequent."""

    ROLE: ClassVar[Role] = "boolean"
    name: str
    type: ColumnType
    missing: Missing
    fill: float | None
    indicator: bool

    @classmethod
    def fit(cls, planned: Planned, train: Codes) -> BooleanCode:
        """Count the train split's values."""
        values = numbers(planned.column)[train]
        values = values[~np.isnan(values)]
        fill = float(2 * values.sum() > len(values)) if planned.missing == "impute" and len(values) else None
        return cls(planned.column.name, planned.column.type, planned.missing, fill, planned.indicator)

    def features(self) -> list[str]:
        """Return the column's name, and that of the indicator."""
        return [self.name, f"{self.name} is missing"] if self.indicator else [self.name]

    def write(self, column: Column, out: Out) -> None:
        """Write 0 or 1."""
        values = numbers(column)
        absent = np.isnan(values)
        if self.fill is not None:
            values[absent] = self.fill
        out[:, 0] = values
        if self.indicator:
            out[:, 1] = absent

    def words(self) -> str:
        """Say that it is 0 or 1."""
        return "0 or 1" + _filled(self.missing, None if self.fill is None else f"{self.fill:g}", self.indicator)


@dataclass(frozen=True)
class CategoricalCode:
    """One feature per category of the train split, one for all others, and one for missing values; or their number.

    Attributes:
        name: Of the column; `type` is the type that it was trained with.
        missing: What is done with missing values.
        categories: Names of the train split's categories, in order.
        has_missing: Whether missing values have a category of their own: with `impute`, if the train split has any.
        is_index: Whether it is one feature: 0 for all others, then the categories from 1, then missing values. A model
            that embeds it can keep the vector of 0 at zero, because nothing trains it.
    """

    ROLE: ClassVar[Role] = "categorical"
    name: str
    type: ColumnType
    missing: Missing
    categories: tuple[str, ...]
    has_missing: bool
    is_index: bool = False

    @property
    def number(self) -> int:
        """Number of categories with those for all others and for missing values."""
        return len(self.categories) + 1 + self.has_missing

    @classmethod
    def fit(cls, planned: Planned, train: Codes, *, is_index: bool = False) -> CategoricalCode:
        """Collect the train split's categories."""
        column, is_train = planned.column, np.zeros(len(planned.column.values), dtype=np.bool_)
        is_train[train] = True
        some = [
            pc.unique(piece.values.filter(pa.array(is_train[start : start + len(piece.values)])))
            for start, piece in column.pieces()
        ]
        values = pa.chunked_array([pa.chunked_array(some, type=column.values.type).unique()])
        seen, codes = categories(replace(column, values=values))
        has_missing = planned.missing == "impute" and bool((codes == -1).any())
        return cls(column.name, column.type, planned.missing, tuple(seen), has_missing, is_index)

    def features(self) -> list[str]:
        """Return `column=category` for each, `column is another` and `column is missing`; or the column's name."""
        if self.is_index:
            return [self.name]
        own = [f"{self.name}={category}" for category in self.categories]
        return [*own, f"{self.name} is another", *([f"{self.name} is missing"] if self.has_missing else [])]

    def write(self, column: Column, out: Out) -> None:
        """Write 1 for the row's category and 0 for the others, or the number of the category."""
        names, codes = categories(column)
        number = {category: index + 1 for index, category in enumerate(self.categories)}
        # -1, a missing value, is the table's last entry
        missing = len(self.categories) + 1 if self.has_missing else 0
        found = np.array([*(number.get(name, 0) for name in names), missing], dtype=np.int64)[codes]
        if self.is_index:
            out[:, 0] = found
        else:
            out[:] = 0
            found[found == 0] = len(self.categories) + 1  # all others come after the categories
            if self.has_missing:
                found[codes == -1] = len(self.categories) + 2
            out[np.arange(len(codes)), found - 1] = 1
        if self.missing != "impute":
            out[codes == -1] = np.nan

    def words(self) -> str:
        """Say the number of categories."""
        own = ", missing values a category" if self.has_missing else ""
        how = ", as one number" if self.is_index else ""
        return f"{len(self.categories)} categories and another{own}{how}" + (
            "; dropped" if self.missing == "drop" else ""
        )


PARTS = ("time of day", "weekday", "day of year")


@dataclass(frozen=True)
class DatetimeCode:
    """A time: the days since the train split's mean, scaled, and sine and cosine of the parts that vary there.

    Attributes:
        name: Of the column; `type` is the type that it was trained with.
        missing: What is done with missing values.
        offset: The train split's lower median in microseconds since 1970, subtracted exactly.
        mean: Mean of the days since the offset; `std` their standard deviation, or 1.
        fill: Median of the train split in microseconds since the offset; None if nothing is filled in.
        parts: Those of PARTS that vary in the train split.
        indicator: Whether a feature is 1 where the value was missing and 0 elsewhere.
    """

    ROLE: ClassVar[Role] = "datetime"
    name: str
    type: ColumnType
    missing: Missing
    offset: int
    mean: float
    std: float
    fill: int | None
    parts: tuple[str, ...]
    indicator: bool

    @classmethod
    def fit(cls, planned: Planned, train: Codes, *, normalize: bool) -> DatetimeCode:
        """Measure the train split."""
        column = planned.column
        present = _present(planned, train)
        values = integers(column)[present]
        varying = tuple(part for part in PARTS if _varies(part, values))
        offset = int(_lower_median(values)) if len(values) else 0
        del values
        since = shifted(column, offset)[present]
        fill = round(float(np.median(since))) if planned.missing == "impute" and len(since) else None
        since /= DAY
        mean, std = _moments(since)
        std = std if normalize else 1.0
        return cls(column.name, column.type, planned.missing, offset, mean, std, fill, varying, planned.indicator)

    def features(self) -> list[str]:
        """Return `column days`, sine and cosine of each part, and the indicator."""
        parts = [f"{self.name} {part} {wave}" for part in self.parts for wave in ("sin", "cos")]
        return [f"{self.name} days", *parts, *([f"{self.name} is missing"] if self.indicator else [])]

    def write(self, column: Column, out: Out) -> None:
        """Write the scaled days and the waves."""
        since = shifted(column, self.offset)
        absent = np.isnan(since)
        values = np.zeros(len(since), np.int64) if column.type is ColumnType.EMPTY else integers(column)
        if self.fill is not None:
            since[absent], values[absent] = self.fill, self.offset + self.fill
        out[:, 0] = (since / DAY - self.mean) / self.std
        for index, part in enumerate(self.parts):
            angle = 2 * np.pi * _turn(part, values)
            out[:, 1 + 2 * index], out[:, 2 + 2 * index] = np.sin(angle), np.cos(angle)
        if self.indicator:
            out[:, -1] = absent
        if self.fill is None:
            out[absent] = np.nan

    def words(self) -> str:
        """Say the parts."""
        fill = None if self.fill is None else str(np.datetime64(self.offset + self.fill, "us"))[:19]
        parts = f"; {', '.join(self.parts)}" if self.parts else ""
        return f"days, scaled{parts}" + _filled(self.missing, fill, self.indicator)


def _turn(part: str, values: Codes) -> Floats:
    """Return which share of its period a part has gone through: of a day, of a week from Monday, of 366 days."""
    if part == "time of day":
        return (values % DAY) / DAY
    days = values // DAY
    if part == "weekday":
        return (days + 3) % 7 / 7  # 1970-01-01 was a Thursday
    dates = days.astype("datetime64[D]")
    return np.asarray((dates - dates.astype("datetime64[Y]")).astype(np.float64) / 366, dtype=np.float64)


def _present(planned: Planned, rows: Codes) -> Codes:
    """Return those rows that have a value."""
    return rows[~is_missing(planned.column)[rows]] if planned.nulls else rows


def _lower_median(values: npt.NDArray[Any]) -> Any:
    """Return the lower of the values in the middle; changes their order."""
    middle = (len(values) - 1) // 2
    values.partition(middle)
    return values[middle]


def _varies(part: str, values: Codes) -> bool:
    blocks = (_turn(part, values[start : start + _BLOCK]) for start in range(0, len(values), _BLOCK))
    edges = [(block.min(), block.max()) for block in blocks]
    return bool(edges) and max(high for _, high in edges) > min(low for low, _ in edges)


def _moments(values: Floats) -> tuple[float, float]:
    """Return mean and standard deviation; 0 and 1 of nothing, and a constant is only centered."""
    if len(values) == 0:
        return 0.0, 1.0
    if len(values) <= _BLOCK:
        return float(values.mean()), float(values.std()) or 1.0
    # numpy would make two more arrays of that length
    blocks = [values[start : start + _BLOCK] for start in range(0, len(values), _BLOCK)]
    mean = sum(float(block.sum()) for block in blocks) / len(values)
    variance = sum(float(((block - mean) ** 2).sum()) for block in blocks) / len(values)
    return mean, float(np.sqrt(variance)) or 1.0


def _filled(missing: Missing, fill: str | None, indicator: bool) -> str:
    if missing == "drop":
        return "; rows without it dropped"
    return (f"; missing: {fill}" if fill is not None else "") + (" and an indicator" if indicator else "")


Code = NumericCode | BooleanCode | CategoricalCode | DatetimeCode
"""A column's way into the model; its fields are plain, so that it can be packaged as JSON."""

CODES: dict[str, Callable[..., Code]] = {
    "numeric": NumericCode,
    "boolean": BooleanCode,
    "categorical": CategoricalCode,
    "datetime": DatetimeCode,
}


def fit_code(planned: Planned, train: Codes, *, normalize: bool, is_index: bool = False) -> Code:
    """Return the code of a feature, measured on the train split.

    Raises:
        DataError: The column has no value there.
    """
    column = planned.column
    if not len(train) or (planned.nulls and is_missing(column)[train].all()):
        raise DataError(
            f"column {column.name!r} has no value in the {len(train):,} rows of the train split; declare it ignore in "
            "data.columns"
        )
    if planned.role == "numeric":
        return NumericCode.fit(planned, train, normalize=normalize)
    if planned.role == "datetime":
        return DatetimeCode.fit(planned, train, normalize=normalize)
    if planned.role == "boolean":
        return BooleanCode.fit(planned, train)
    return CategoricalCode.fit(planned, train, is_index=is_index)


def code_from(wire: dict[str, Any]) -> Code:
    """Return the code that `dataclasses.asdict` made a dict of, with its role."""
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in wire.items() if key != "role"}
    return CODES[wire["role"]](**(fields | {"type": ColumnType(wire["type"])}))
