"""Boosted trees on the digits: the objective is a cross-validation, and time is counted in trees.

Three models, one for each fold, grow together by ten trees at a time; after each ten the mean accuracy is reported.
Runs by itself with the values below, as a TrainingJob, and as the trials of a search, which prunes it between two tens.
"""

import pickle
from pathlib import Path

import numpy as np
import trainmaster
from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold

FOLDS, TREES, AT_ONCE, FILE = 3, 80, 10, Path("checkpoints/models.pickle")
values = {"learning_rate": 0.1, "max_depth": 3, "subsample": 1.0, **trainmaster.parameters()}
x, y = load_digits(return_X_y=True)
folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(x, y))
models = [
    GradientBoostingClassifier(n_estimators=0, warm_start=True, max_features=8, random_state=fold, **values)
    for fold in range(FOLDS)
]
if FILE.exists():
    models = pickle.loads(FILE.read_bytes())
for trees in range(models[0].n_estimators + AT_ONCE, TREES + 1, AT_ONCE):
    for model, (train, _) in zip(models, folds, strict=True):
        model.set_params(n_estimators=trees).fit(x[train], y[train])
    accuracy = np.mean([model.score(x[test], y[test]) for model, (_, test) in zip(models, folds, strict=True)])
    # before the save: a program that is killed between the two must report these trees again, and not leave them out
    trainmaster.report(step=trees, total_steps=TREES, val_accuracy=accuracy)
    FILE.parent.mkdir(exist_ok=True)
    FILE.with_suffix(".tmp").write_bytes(pickle.dumps(models))
    FILE.with_suffix(".tmp").replace(FILE)
    print(f"{trees} trees: {accuracy:.4f}", flush=True)
