"""`spec.training.data`: the data source, its split and its batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from trainmaster_api.address import Source
from trainmaster_api.types import Model

from .cache import Cache
from .images import Images
from .loading import Loading
from .part import Call, Reference
from .table import ColumnName, ColumnSpec, Csv, Missing
from .text import Text

DATA_CALL = Call(
    offered=("base_dir", "split", "rank", "world_size"),
    words="A map-style dataset: `__len__`, and `__getitem__` that returns (sample, target); or an iterable one: "
    "`__iter__` that yields them, with `state_dict` and `load_state_dict`. It is called with `args`, and with "
    "`base_dir` (the job's folder) if its signature has it; an iterable class also with `split` (`train`, "
    "`validation` or `test`: an object for each), `rank` and `world_size` (it reads a part of its own).",
)


SplitBy = Literal["random", "stratified", "group", "time", "column"]

SPLIT_WORDS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""Values of a column that says the split, with `split.by: column`; case and spaces around them don't matter."""


@dataclass(frozen=True)
class SklearnSet:
    """A data set that comes with scikit-learn.

    Attributes:
        rows: Number of rows.
        shape: Shape of one sample.
        classes: Number of classes; None: a regression.
    """

    rows: int
    shape: tuple[int, ...]
    classes: int | None


SKLEARN_SETS: dict[str, SklearnSet] = {
    "digits": SklearnSet(1797, (1, 8, 8), 10),
    "iris": SklearnSet(150, (4,), 3),
    "wine": SklearnSet(178, (13,), 3),
    "breast_cancer": SklearnSet(569, (30,), 2),
    "diabetes": SklearnSet(442, (10,), None),
}


TableFormat = Literal["csv", "tsv", "jsonl", "parquet"]
TABLE_ENDINGS = (
    ".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz", ".tsv.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet",
)  # fmt: skip
"""What names of tables end in. A source of another name is a table if `data.format` is given."""


class Split(Model):
    """Train, validation and test split: a pure function of the seed, the number of rows and what the split goes by."""

    by: SplitBy | None = None
    """What the split goes by: `random`; `stratified` (every class divided in the same proportions); `group` (rows of
    one group are never in two splits); `time` (the oldest rows are the train split, the newest the test split);
    `column` (a column says train, validation or test). Default: `stratified` for a classification whose smallest class
    has a row for each split at the given shares (10 rows for a share of 0.1), else `random`."""
    column: ColumnName | None = None
    """Column that the split goes by, with `group` (default: the column with the role `group`), `time` or `column`.
    Tables only."""
    train: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Share of the rows used for training."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the rows used for validation, which selects the best checkpoint and triggers early stopping."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the rows held out until training has ended. The three shares must add up to 1. `by: column` ignores
    them, and a split with a source of its own takes no share: the others divide `source` in proportion."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of the shuffle before the split."""


class Data(Model):
    """Data source, split and batches."""

    EXACTLY_ONE: ClassVar[tuple[str, ...]] = ("source", "class")

    source: Source | None = None
    """`sklearn:<digits|iris|wine|breast_cancer|diabetes>`, a path or s3:// address of a table (a .csv, .tsv, .jsonl or
    .parquet file, text also as .gz or .zst; a pattern such as `days/*.csv`; with `format`, a folder of such files), or
    `images:<folder or s3:// prefix>` with one sub-folder per class, or a .zip, .tar, .tar.gz or .tgz of such a folder.
    A relative path is relative to the TrainingJob's file on a laptop and to the container's working directory in a
    cluster."""
    validation_source: Source | None = None
    """Source of the validation split, if it has one of its own: of the same kind as `source`, with the same columns.
    `source` is then divided into the other splits. Tables and image folders only."""
    test_source: Source | None = None
    """Source of the test split, if it has one of its own, as `validationSource`."""
    reference: Reference = None
    """Reference to your own dataset, `package.module:Name`; instead of a source."""
    args: dict[str, Any] = {}
    """Arguments of the class."""
    format: TableFormat | None = None
    """Format of a table. Default: by the ending of the source. A folder, or a file of another name, needs it."""
    csv: Csv = Csv()
    """How CSV and TSV files are read."""
    nulls: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=64)] | None = None
    """Words of CSV and TSV files that mean null, in place of the default: the empty cell, NA, N/A, n/a, NaN, nan, NULL,
    null, None and #N/A. A quoted word is text. In the target, only the empty cell is null, unless this is declared."""
    target: ColumnName | None = None
    """Column to predict; required for tables, not accepted for other sources."""
    features: Annotated[list[ColumnName], Field(min_length=1, max_length=4096)] | None = None
    """Columns to predict from. Default: every column that has a role. Tables only."""
    columns: Annotated[dict[ColumnName, ColumnSpec], Field(max_length=4096)] = {}
    """What columns are for, by name, where the inferred role isn't right. Tables only."""
    missing: Missing = "error"
    """What to do with missing values of features: reject the data, fill them in (numbers and times: the median of the
    train split; categories: a category of their own), or drop the rows, which are counted. Tables only."""
    categories: Literal["oneHot", "index"] = "oneHot"
    """How a categorical column becomes features: `oneHot` (one per category) or `index` (one, the number of the
    category), for models that embed it, as mlp and classes of your own do. Tables only."""
    image_size: Annotated[int, Field(ge=4, le=1024)] = 32
    """Side length in pixels that images are resized to."""
    channels: Literal[1, 3] = 3
    """Number of channels of images: 1 (grayscale) or 3 (RGB)."""
    images: Images = Images()
    """How image files become pixels."""
    text: Text = Text()
    """How a column with the role `text` becomes tokens."""
    normalize: bool = True
    """If true, scale each feature (each channel for images) to mean 0 and variance 1 with statistics of the train
    split."""
    split: Split = Split()
    """Train, validation and test split."""
    dedupe: bool = False
    """If true, remove from the train split each row whose features and target are equal to those of a row of validation
    or test, and each image whose file has the same bytes as one of them. Copies within one split stay. Tables and
    images only."""
    sampling: Literal["uniform", "balanced"] = "uniform"
    """How an epoch draws rows of the train split: `uniform` (every row once) or `balanced` (every class equally often:
    rows of small classes are repeated, and rows of large ones wait for a later epoch). Classification only."""
    loading: Loading = Loading()
    """Who makes the samples, and how far ahead."""
    cache: Cache = Cache()
    """Where a table that is larger than memory is kept. Tables only."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Rows per optimizer step over all workers, so the result doesn't depend on the number of workers.
    Must be a multiple of workers x gradientAccumulation."""

    @property
    def text_columns(self) -> list[str]:
        """Names of the columns that have the role `text`."""
        return [name for name, column in self.columns.items() if column.role == "text"]

    @property
    def label(self) -> str:
        """The source or the class, for messages and logs."""
        return self.source or self.reference or ""

    @property
    def own_sources(self) -> dict[str, str]:
        """The sources of single splits by their field: `validationSource`, `testSource`."""
        found = {"validationSource": self.validation_source, "testSource": self.test_source}
        return {field: source for field, source in found.items() if source is not None}

    def of_source(self, source: str) -> Data:
        """Return the same with another source, to read that by the same rules."""
        return self.model_copy(update={"source": source, "validation_source": None, "test_source": None})

    @property
    def sklearn_set(self) -> SklearnSet | None:
        """The scikit-learn data set that the source refers to; None for other sources."""
        kind, _, name = (self.source or "").partition(":")
        return SKLEARN_SETS.get(name) if kind == "sklearn" else None

    @property
    def largest_batch(self) -> float:
        """The largest batch that the train split has rows for; infinite where only reading the data tells."""
        known = self.sklearn_set
        return math.inf if known is None else known.rows * self.split.train + 1

    @property
    def is_images(self) -> bool:
        """Whether the rows are images: those of a folder or an archive, or of a column of a table."""
        return (self.source or "").startswith("images:") or (self.is_table and self.image_column is not None)

    @property
    def image_column(self) -> str | None:
        """Name of the column of a table that has the images; None: no column has the role image."""
        return next((name for name, column in self.columns.items() if column.role == "image"), None)

    @property
    def is_table(self) -> bool:
        """Whether the source is a table: its name ends as one, or its format is given."""
        return self.table_format is not None

    @property
    def table_format(self) -> TableFormat | None:
        """Format of the table that the source is; None: it isn't one."""
        source = (self.source or "").lower().rstrip("/")
        if not source or source.startswith(("sklearn:", "images:")):
            return None
        if self.format is not None:
            return self.format
        ending = next((ending for ending in TABLE_ENDINGS if source.endswith(ending)), "")
        formats: dict[str, TableFormat] = {"csv": "csv", "tsv": "tsv", "jsonl": "jsonl", "parquet": "parquet"}
        return formats.get(ending.split(".")[1]) if ending else None
