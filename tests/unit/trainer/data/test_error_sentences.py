"""The page shows what `trainmaster data` says of likely mistakes: every mistake is made, and the words compared.

REGENERATE=1 writes the section of the page as the product speaks now.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from trainmaster_cli.main import main

from tests.factories import REMOVE, Changes, change

PAGE = Path(__file__).parents[4] / "docs" / "data.md"
START, END = "<!-- what the product says, written by a test: -->\n", "<!-- end -->\n"

DICE = np.random.default_rng(0)
AGES, HEIGHTS = DICE.integers(18, 80, 60), DICE.normal(170, 9, 60).round(1)
ROWS = [
    f"{age},{height},{'yes' if age + other > 70 else 'no'}"
    for age, height, other in zip(AGES, HEIGHTS, DICE.integers(0, 50, 60), strict=True)
]


def table(*changed: tuple[int, str], header: str = "age,height,buys", end: str = "") -> bytes:
    """Sixty people; `changed` replaces rows by number, from 1, and `end` is put behind each row."""
    rows = list(ROWS)
    for row, line in changed:
        rows[row - 1] = line
    return "\n".join([header, *(row + end for row in rows), ""]).encode()


def picture(kind: str = "png", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(DICE.integers(0, 255, (8, 8), dtype=np.uint8)).save(out, kind, **options)
    return out.getvalue()


def pictures(**more: bytes) -> dict[str, bytes]:
    found = {f"pictures/{'cat' if n % 2 else 'dog'}/{n:02d}.png": picture() for n in range(40)}
    return found | {name.replace("__", "/"): content for name, content in more.items()}


def float_tiff() -> bytes:
    out = io.BytesIO()
    Image.fromarray(DICE.random((8, 8)).astype(np.float32)).save(out, "tiff")
    return out.getvalue()


def parquet(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"age": AGES, "buys": AGES > 40, **columns}), out)
    return out.getvalue()


DATA = "spec.training.data"
TASK = "spec.training.task.name"
IMAGES: Changes = {f"{DATA}.source": "images:pictures", f"{DATA}.target": REMOVE}
OWN = "class Rows:\n    def __len__(self):\n        return 100\n    def __getitem__(self, index):\n        return {}\n"


@dataclass(frozen=True)
class Mistake:
    """What was done, and what it takes to do it."""

    title: str
    files: dict[str, bytes] = field(default_factory=lambda: {"people.csv": table()})
    changes: Changes = field(default_factory=dict)


def of_table(title: str, content: bytes, **changes: Any) -> Mistake:
    return Mistake(title, {"people.csv": content}, {f"{DATA}.{key}": value for key, value in changes.items()})


MISTAKES = (
    Mistake("The file isn't there", {}),
    of_table("The target is misspelled", table(), target="Buys"),
    of_table("Every row ends in a delimiter", table((1, ROWS[0]), end=",")),
    of_table("One row has a field too few", table((17, "31,yes"))),
    of_table("Two columns have one name", table(header="age,age,buys")),
    of_table("Cells are empty", table((4, "44,,yes"), (9, ",171.2,no"))),
    of_table("A column of numbers has words", table((12, "33,unknown,no"), (40, "51,-,no"))),
    of_table("The target is empty", table((20, "58,180.5,"))),
    of_table("A number stands for infinity", table((18, "58,1.7976931348623157e308,no"), (19, "41,inf,no"))),
    of_table("The file isn't UTF-8", table(header="age,größe,buys").decode().encode("cp1252"), features=["age"]),
    of_table("Numbers have two decimal separators", table((7, '33,"171,5",no'))),
    Mistake("A classification of measured numbers", changes={f"{DATA}.target": "height"}),
    Mistake("A regression of names", changes={TASK: "regression"}),
    of_table(
        "A column says what the target says",
        "\n".join(["age,buys,outcome", *(f"{n % 31},{'ny'[n % 2]},{n % 2}" for n in range(60))]).encode(),
    ),
    Mistake("Fewer classes than the data has", changes={"spec.training.task.numClasses": 2}, files={
        "people.csv": table((3, "20,165.0,maybe"), (33, "25,166.0,maybe")),
    }),
    of_table("A batch is larger than the train split", table(), batchSize=64),
    of_table(
        "A column can't have the role that is declared", table(), columns={"height": {"role": "datetime"}}
    ),
    Mistake(
        "The split goes by a time that is text",
        {"people.csv": table(header="age,day,buys").replace(b".", b".1.")},
        {f"{DATA}.split": {"by": "time", "column": "day"}, f"{DATA}.features": ["age"]},
    ),
    Mistake(
        "A list is chosen as a feature",
        {"people.parquet": parquet(tags=[["a", "b"]] * 60)},
        {f"{DATA}.source": "people.parquet", f"{DATA}.features": ["age", "tags"]},
    ),
    Mistake("A file is not what its name says", {"people.parquet": table()}, {f"{DATA}.source": "people.parquet"}),
    Mistake("Images are in no sub-folder of a class", {"pictures/1.png": picture()}, IMAGES),
    Mistake("Images can't be read", pictures(pictures__dog__97_html=b"x") | {
        "pictures/cat/98.jpg": b"<html>", "pictures/cat/99.jpg": b"",
    }, IMAGES),
    Mistake("An image has floating-point values", pictures() | {"pictures/cat/99.tif": float_tiff()}, IMAGES),
    Mistake(
        "A class of one's own doesn't return pairs",
        {"mine.py": OWN.format("[float(index)]").encode()},
        {DATA: {"class": "mine:Rows"}, "spec.training.task.numClasses": 2},
    ),
)  # fmt: skip


def say(mistake: Mistake, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Make a mistake in the working directory and return what is said."""
    for name, content in mistake.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    job = {
        "apiVersion": "trainmaster.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "people"},
        "spec": {
            "training": {
                "task": {"name": "classification"},
                "data": {"source": "people.csv", "target": "buys", "batchSize": 16},
                "model": {"name": "mlp"},
            }
        },
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(change(job, mistake.changes), sort_keys=False))
    assert main(["data", "job.yaml"]) == 2, mistake.title
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err.rstrip("\n")


def test_sentences_are_those_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for number, mistake in enumerate(MISTAKES):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        found.append(f"{mistake.title}:\n\n```\n{say(mistake, folder, capsys)}\n```\n")
    before, _, rest = PAGE.read_text().partition(START)
    section, _, after = rest.partition(END)
    if os.environ.get("REGENERATE"):
        PAGE.write_text(before + START + "\n" + "\n".join(found) + "\n" + END + after)
        return
    assert section.strip().split("\n\n\n") == ["\n".join(found).strip()]


def test_there_are_twenty() -> None:
    assert len({mistake.title for mistake in MISTAKES}) == len(MISTAKES) >= 20
