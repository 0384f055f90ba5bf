"""CSV and Parquet: read whole and checked whole, so that a broken row shows before the first step, with its number."""

from __future__ import annotations

import difflib
import io

import numpy as np
import pandas as pd
import torch

from trainmaster_trainer.data.files import Files
from trainmaster_trainer.data.prepared import TensorRows
from trainmaster_trainer.errors import DataError

from .base import Request

MOST_PROBLEMS = 10


def build(request: Request) -> TensorRows:
    """Return numeric columns as features, the target column as classes or numbers.

    Raises:
        DataError: With every missing column, or the first ten broken cells by row and column.
    """
    files, spec, task = request.files(), request.data, request.task
    frame = _read(files)
    assert spec.target is not None  # a rule of the contract for these sources
    features = spec.features or [
        str(column) for column in frame.columns if column != spec.target and _is_numeric(frame[column])
    ]
    _require_columns(files, frame, [spec.target, *features])
    if not features:
        raise DataError(f"{files.shown} has no numeric column except the target; set data.features")
    problems: list[str] = []
    x = np.column_stack([_numbers(frame, name, problems) for name in features])
    if task.name == "classification":
        y, labels = _classes(frame, spec.target, problems)
    else:
        y, labels = torch.from_numpy(_numbers(frame, spec.target, problems)), []
    if problems:
        more = f" and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
        raise DataError(f"{files.shown}: " + "; ".join(problems[:MOST_PROBLEMS]) + more)
    return TensorRows(torch.from_numpy(x), y, labels, features)


def _read(files: Files) -> pd.DataFrame:
    content = io.BytesIO(files.read())
    is_parquet = files.name.lower().endswith(".parquet")
    try:
        frame = pd.read_parquet(content) if is_parquet else pd.read_csv(content, skipinitialspace=True)
    except (ValueError, OSError) as error:  # pandas' and pyarrow's parser errors are ValueErrors
        kind = "Parquet" if is_parquet else "CSV"
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{files.shown} can't be read as {kind}: {reason}") from error
    if frame.empty:
        raise DataError(f"{files.shown} has no rows")
    return frame


def _is_numeric(column: pd.Series) -> bool:
    """Return whether a column is numeric except for a few bad cells, which are reported rather than dropped."""
    numbers = pd.to_numeric(column, errors="coerce")
    return bool(numbers.notna().mean() > 0.5)


def _require_columns(files: Files, frame: pd.DataFrame, names: list[str]) -> None:
    known = [str(column) for column in frame.columns]
    missing = []
    for name in dict.fromkeys(names):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            missing.append(f"{name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    if missing:
        raise DataError(
            f"{files.shown} has no column {', '.join(missing)}; its columns are {', '.join(known[:40])}. "
            "Correct data.target or data.features"
        )


def _numbers(frame: pd.DataFrame, name: str, problems: list[str]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    column = frame[name]
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    for row in np.flatnonzero(~np.isfinite(numbers)):
        value = column.iloc[int(row)]
        value = value.item() if isinstance(value, np.generic) else value
        what = "is empty" if pd.isna(value) else f"{value!r} is not a finite number"
        problems.append(f"row {row + 1}, column {name}: {what}")
    return numbers.astype(np.float32)


def _classes(frame: pd.DataFrame, name: str, problems: list[str]) -> tuple[torch.Tensor, list[str]]:
    column = frame[name]
    for row in np.flatnonzero(column.isna().to_numpy()):
        problems.append(f"row {row + 1}, column {name}: the class is empty")
    labels = sorted(column.dropna().unique().tolist(), key=lambda v: (isinstance(v, str), v))
    number = {label: index for index, label in enumerate(labels)}
    classes = [number.get(value, -1) for value in column.tolist()]
    return torch.tensor(classes, dtype=torch.int64), [str(label) for label in labels]
