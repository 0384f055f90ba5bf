"""examples/search-boosting: an objective that is a cross-validation, time that is trees, a state that is no tensor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold

from tests.factories import load_example
from tests.integration.processes import kill_all
from tests.integration.test_laptop import Laptop, laptop, wait
from tests.integration.test_search import reports, run_of

pytestmark = pytest.mark.ray
__all__ = ["laptop"]
EXAMPLE = Path(__file__).parents[2] / "examples/search-boosting"
REPORTS, AT_ONCE = 8, 10


def accuracies(values: dict[str, Any]) -> list[float]:
    """Mean accuracy of the folds after each ten trees, of models that are fitted in one piece."""
    x, y = load_digits(return_X_y=True)
    found = []
    for fold, (train, test) in enumerate(StratifiedKFold(3, shuffle=True, random_state=0).split(x, y)):
        model = GradientBoostingClassifier(
            n_estimators=REPORTS * AT_ONCE, max_features=8, random_state=fold, **values
        ).fit(x[train], y[train])
        stages = list(model.staged_predict(x[test]))[AT_ONCE - 1 :: AT_ONCE]
        found.append([float(np.mean(each == y[test])) for each in stages])
    return [float(each) for each in np.mean(found, axis=0)]


def test_cross_validated_boosting_is_killed_and_each_trial_is_what_scikit_learn_computes(laptop: Laptop) -> None:
    shutil.copy(EXAMPLE / "train.py", laptop.folder)
    job = load_example("search-boosting")
    del job["spec"]["tracking"]
    job["spec"]["tuning"]["budget"]["maxTrials"] = 3
    (laptop.folder / "job.yaml").write_text(yaml.safe_dump(job))
    process = laptop.start()
    wait(lambda: reports(laptop.folder) >= 5, "reports", unless=process)
    kill_all(process)
    laptop.finish(laptop.start())
    trials = json.loads((run_of(laptop.folder) / "tuning/result.json").read_text())["trials"]
    assert [each["number"] for each in trials] == list(range(3))
    assert {each["state"] for each in trials} == {"Complete", "Pruned"}
    for each in trials:
        expected = accuracies(each["values"])
        assert each["time"] == REPORTS if each["state"] == "Complete" else each["time"] < REPORTS
        assert each["objectives"] == [pytest.approx(max(expected[: each["time"]]), abs=1e-12)]
    newest = json.loads((run_of(laptop.folder) / "LATEST").read_text())
    assert newest["step"] == REPORTS * AT_ONCE, "the winner was trained to its end, and its files were stored"
