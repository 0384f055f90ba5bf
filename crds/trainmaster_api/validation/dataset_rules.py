"""Rules of `spec.training.data`."""

from __future__ import annotations

from trainmaster_api.spec.data import SKLEARN_SETS

from .rule import Rule, cel_list

SKLEARN_CLASSES = {f"sklearn:{name}": classes for name, classes in SKLEARN_SETS.items() if classes}
SKLEARN_REGRESSIONS = [f"sklearn:{name}" for name, classes in SKLEARN_SETS.items() if classes is None]


def _is_table(source: str) -> bool:
    return not source.startswith(("sklearn:", "images:")) and source.lower().endswith((".csv", ".parquet"))


_SKLEARN = [f"sklearn:{name}" for name in SKLEARN_SETS]
_TABLE = r"self.source.matches('(?i)[.](csv|parquet)$')"
_NAMED = "(self.source.startsWith('sklearn:') || self.source.startsWith('images:'))"

DATA_RULES: tuple[Rule, ...] = (
    Rule(
        id="source-kind",
        scope="spec.training.data",
        field="source",
        reads=("source",),
        cel=f"{_NAMED} || {_TABLE}",
        check=lambda data: data["source"].startswith(("sklearn:", "images:")) or _is_table(data["source"]),
        message="must be `sklearn:<name>`, `images:<folder>`, or the address of a file that ends in .csv or .parquet",
    ),
    Rule(
        id="source-scheme",
        scope="spec.training.data",
        field="source",
        reads=("source",),
        cel="!self.source.contains('://') || self.source.startsWith('s3://') || self.source.startsWith('images:s3://')",
        check=lambda data: "://" not in data["source"] or data["source"].startswith(("s3://", "images:s3://")),
        message="is read from a path or from s3://; copy the data to one of them",
    ),
    Rule(
        id="source-sklearn",
        scope="spec.training.data",
        field="source",
        reads=("source",),
        cel=f"!self.source.startsWith('sklearn:') || self.source in {cel_list(_SKLEARN)}",
        check=lambda data: not data["source"].startswith("sklearn:") or data["source"] in _SKLEARN,
        message=f"scikit-learn's sets are {', '.join(_SKLEARN)}",
    ),
    Rule(
        id="target-required",
        scope="spec.training.data",
        field="target",
        reads=("source", "target"),
        cel=f"{_NAMED} || !{_TABLE} || has(self.target)",
        check=lambda data: not _is_table(data["source"]) or "target" in data,
        message="a CSV or Parquet file needs `target`, the column to predict",
    ),
    Rule(
        id="target-forbidden",
        scope="spec.training.data",
        field="target",
        reads=("source", "target"),
        cel=f"!{_NAMED} || !has(self.target)",
        check=lambda data: not data["source"].startswith(("sklearn:", "images:")) or "target" not in data,
        message="only a CSV or Parquet file has a `target`; this source brings its own labels: leave it out",
    ),
    Rule(
        id="features-forbidden",
        scope="spec.training.data",
        field="features",
        reads=("source", "features"),
        cel=f"!{_NAMED} || !has(self.features)",
        check=lambda data: not data["source"].startswith(("sklearn:", "images:")) or "features" not in data,
        message="only a CSV or Parquet file has columns to choose `features` from: leave it out",
    ),
    Rule(
        id="features-target",
        scope="spec.training.data",
        field="features",
        reads=("target", "features"),
        cel="!has(self.features) || !has(self.target) || !(self.target in self.features)",
        check=lambda data: "target" not in data or data["target"] not in data.get("features", ()),
        message="must not contain the target: the model would read the answer",
    ),
    Rule(
        id="split-sum",
        scope="spec.training.data",
        field="split",
        reads=("split.train", "split.validation", "split.test"),
        cel=(
            "self.split.train + self.split.validation + self.split.test > 0.999999 && "
            "self.split.train + self.split.validation + self.split.test < 1.000001"
        ),
        check=lambda data: (
            0.999999 < data["split"]["train"] + data["split"]["validation"] + data["split"]["test"] < 1.000001
        ),
        message="train, validation and test must add up to 1",
    ),
)
