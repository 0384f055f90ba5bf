"""TF-IDF and logistic regression, and the best constant answer, on the test split of the example's job.

python examples/text-docstrings/baseline.py
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import yaml
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.data import load_data

HERE = Path(__file__).parent


def main() -> None:
    """Print both accuracies on the test split."""
    job = TrainingJob.model_validate(yaml.safe_load((HERE / "trainingjob.yaml").read_text()))
    data = load_data(job, HERE, {})
    with gzip.open(HERE / "docstrings.jsonl.gz") as file:
        records = [json.loads(line) for line in file]
    texts = np.array([record["text"] for record in records], object)
    labels = np.array([record["package"] for record in records])
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    model = LogisticRegression(C=10, max_iter=300).fit(words.fit_transform(texts[data.train]), labels[data.train])
    found = model.predict(words.transform(texts[data.test]))
    names, counts = np.unique(labels[data.test], return_counts=True)
    print(f"TF-IDF and logistic regression: {np.mean(found == labels[data.test]):.4f}")
    print(f"always {names[counts.argmax()]}: {counts.max() / counts.sum():.4f}")


if __name__ == "__main__":
    main()
