"""Writes the small data files of the examples from scikit-learn's bundled sets.

python examples/make_data.py
"""

from __future__ import annotations

from pathlib import Path

from sklearn.datasets import load_diabetes, load_iris

HERE = Path(__file__).parent


def main() -> None:
    """Write examples/tabular-csv/diabetes.csv and examples/iris-parquet/iris.parquet."""
    diabetes = load_diabetes(as_frame=True, scaled=False)
    table = diabetes.frame.rename(columns={"target": "progression"})
    table.to_csv(HERE / "tabular-csv" / "diabetes.csv", index=False)

    iris = load_iris(as_frame=True)
    table = iris.data.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_"))
    table["species"] = [str(iris.target_names[label]) for label in iris.target]
    table.to_parquet(HERE / "iris-parquet" / "iris.parquet", index=False)


if __name__ == "__main__":
    main()
