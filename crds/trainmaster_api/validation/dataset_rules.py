"""Rules of `spec.training.data`."""

from __future__ import annotations

from .rule import Rule

DATA_RULES: tuple[Rule, ...] = (
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
