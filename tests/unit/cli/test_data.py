"""`trainmaster data`: what a run would say of its data before the first step, without training."""

import collections
import csv
import hashlib
import io
import json
import random
import re
import sys
import threading
from pathlib import Path

import pytest
import trainmaster_trainer.data.inspect
from PIL import Image
from rich.console import Console
from trainmaster_api.spec.data import SKLEARN_SETS
from trainmaster_cli import progress
from trainmaster_cli.main import main

from tests.factories import REMOVE
from tests.unit.api.samples import job
from tests.unit.cli.test_main import write

TABLE = {
    "spec.training.data": {"source": "rows.csv", "target": "bought", "batchSize": 8},
    "spec.training.task.numClasses": 2,
}
CITIES = ("Rome", "Oslo", "Lima")


@pytest.fixture
def table(tmp_path) -> list[dict[str, str]]:
    """Rows of rows.csv: a number, a category, a constant, and a class."""
    draw = random.Random(1)
    rows = [
        {"a": f"{draw.gauss(5, 2):.3f}", "city": CITIES[n % 3], "unit": "kg", "bought": f"{draw.randrange(2)}"}
        for n in range(120)
    ]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_columns_of_a_table(tmp_path, table, capsys):
    assert main(["data", write(tmp_path, job(TABLE))]) == 0
    out, err = capsys.readouterr()
    assert [line for line in err.splitlines() if not line.startswith("reading ")] == [], "but how far a slow read is"
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "rows.csv: 120 rows, 3 of 4 columns, 5 features"
    values = [float(row["a"]) for row in table]
    assert "column type role missing distinct range becomes" in lines
    start = f"a number numeric 0 {len(set(values))} {min(values):.6g} .. {max(values):.6g} scaled: mean"
    assert any(line.startswith(start) for line in lines)
    assert "unit text ignore 0 1 has one value only, 'kg'" in lines
    content = (tmp_path / "rows.csv").read_bytes()
    digest = hashlib.sha256()
    version = hashlib.sha256(content).hexdigest()
    digest.update(f"8:rows.csv {len(content)} {version}\n".encode())
    assert lines[-1] == f"fingerprint: {digest.hexdigest()[:12]} (1 file, {len(content):,} bytes)"


def test_json_has_what_is_printed(tmp_path, table, capsys):
    assert main(["data", "--json", write(tmp_path, job(TABLE))]) == 0
    found = json.loads(capsys.readouterr().out)
    columns = {each["name"]: each for each in found["table"]["columns"]}
    assert {name: each["role"] for name, each in columns.items()} == {
        "a": "numeric", "city": "categorical", "unit": "ignore", "bought": "target",
    }  # fmt: skip
    assert len(found["features"]) == 1 + len(CITIES) + 1
    assert found["table"]["dialect"]["delimiter"] == ","
    sizes = {name: found["split"][name] for name in ("train", "validation", "test")}
    assert sum(sizes.values()) == 120
    assert sizes["train"] == 96
    counted = collections.Counter(row["bought"] for row in table)
    assert {each["name"]: sum(each[split] for split in sizes) for each in found["classes"]} == counted
    assert found["fingerprint"]["size"] == (tmp_path / "rows.csv").stat().st_size
    assert found["source"] == "rows.csv"


def test_warnings_are_shown(tmp_path, table, capsys):
    rows = (tmp_path / "rows.csv").read_text().splitlines()
    (tmp_path / "rows.csv").write_text("\n".join([*rows, *rows[1:31]]))
    assert main(["data", write(tmp_path, job(TABLE))]) == 0
    out = capsys.readouterr().out
    assert any(line.startswith("warning: ") and "exact cop" in line for line in out.splitlines())


def test_a_mistake_is_a_sentence(tmp_path, table, capsys):
    file = tmp_path / "rows.csv"
    file.write_text(file.read_text().replace("Rome", "Rome,Italy"))
    assert main(["data", write(tmp_path, job(TABLE))]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("trainmaster: rows.csv: row 1 has 5 fields, the header 4; row 4 has 5 fields")
    assert "Traceback" not in err


def test_a_wide_line_is_not_cut(tmp_path, table, capsys):
    name = "x" * 90
    file = tmp_path / "rows.csv"
    file.write_text(file.read_text().replace("a,city", f"{name},city"))
    assert main(["data", write(tmp_path, job(TABLE))]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if name in line]
    mean, std = line.rpartition("mean ")[2].split(", std ")
    assert float(mean) == pytest.approx(5, abs=1)
    assert float(std) == pytest.approx(2, abs=0.6)


def test_a_terminal_gets_a_drawn_table(tmp_path, table, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["data", write(tmp_path, job(TABLE))]) == 0
    out = capsys.readouterr().out
    assert "────" in out
    assert "has one value" in out
    assert max(len(line) for line in re.sub(r"\x1b\[[0-9;]*m", "", out).splitlines() if "─" in line) <= 100


def test_sklearn_set(tmp_path, capsys):
    changes = {"spec.training.data": {"source": "sklearn:iris"}, "spec.training.task.numClasses": 3}
    assert main(["data", write(tmp_path, job(changes))]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"sklearn:iris: {SKLEARN_SETS['iris'].rows} rows, each of 4 numbers"
    assert "class setosa: train 40, validation 5, test 5 rows" in out


def test_images(tmp_path, capsys):
    for number in range(40):
        folder = tmp_path / "pets" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(folder / f"{number}.png")
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("not an image")
    changes = {
        "spec.training.data": {"source": "images:pets", "imageSize": 8, "batchSize": 8},
        "spec.training.task.numClasses": 2,
    }
    assert main(["data", "--json", write(tmp_path, job(changes))]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["shape"], found["table"]) == (40, [3, 8, 8], None)
    assert any("pets" not in note and "cat/notes.txt" in note for note in found["notes"])
    assert found["fingerprint"]["count"] == 40


OWN = """
class Set:
    fingerprint = "version 3"
    def __init__(self, rows):
        print("made")
        self.rows = rows
    def __len__(self):
        return 100 // self.rows * self.rows
    def __getitem__(self, index):
        return [float(index), 1.0], float(index)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The changes of a job with a class of its own."""
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_set", raising=False)
    (tmp_path / "own_set.py").write_text(OWN)
    yield {
        "spec.training.data": {"class": "own_set:Set", "args": {"rows": 100}},
        "spec.training.task": {"name": "regression"},
        "spec.checkpoint": REMOVE,
    }
    sys.modules.pop("own_set", None)


def test_own_class(tmp_path, capsys, own):
    assert main(["data", "--json", write(tmp_path, job(own))]) == 0
    found = json.loads(capsys.readouterr().out)  # and nothing of what the class prints
    assert (found["source"], found["rows"], found["shape"]) == ("own_set:Set", 100, [2])
    assert found["fingerprint"]["value"] == "version 3"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["job.yaml", "own_set.py"]


def test_own_class_that_fails(tmp_path, capsys, own):
    own["spec.training.data"]["args"]["rows"] = 0
    assert main(["data", write(tmp_path, job(own))]) == 2
    err = capsys.readouterr().err
    assert "UserCodeError: ZeroDivisionError" in err
    assert "own_set.py" in err
    assert "trainmaster_trainer" not in err


def test_one_job_only(tmp_path, capsys):
    both = json.dumps(job()) + "\n---\n" + json.dumps(job({"metadata.name": "other"}))
    assert main(["data", write(tmp_path, both)]) == 2
    assert "holds 2 TrainingJobs; `data` accepts exactly one" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["days", "days/*.csv", "*/**/*.csv"])
def test_folders_and_patterns(tmp_path, table, capsys, source):
    (tmp_path / "days").mkdir()
    (tmp_path / "rows.csv").rename(tmp_path / "days" / "monday.csv")
    changes = {**TABLE, "spec.training.data": {**TABLE["spec.training.data"], "source": source, "format": "csv"}}
    assert main(["data", write(tmp_path, job(changes))]) == 0
    assert "120 rows" in capsys.readouterr().out


def test_pattern_in_a_folder_that_does_not_exist(tmp_path, capsys):
    changes = {**TABLE, "spec.training.data": {**TABLE["spec.training.data"], "source": "weeks/*.csv"}}
    assert main(["validate", write(tmp_path, job(changes))]) == 2
    assert f"folder {tmp_path / 'weeks'} does not exist" in capsys.readouterr().err
    assert Path(tmp_path / "job.yaml").exists()


# -- progress ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow(monkeypatch):
    """Reading waits until the line that says so has been written."""
    said = threading.Event()
    begin = progress.Doing.__init__

    def started(self, console=None, seconds=0.01):
        begin(self, console, seconds)
        show = self._console.print

        def shown(words):
            show(words)
            if "50%" in words.plain:
                said.set()

        self._console.print = shown

    monkeypatch.setattr(progress.Doing, "__init__", started)
    real = trainmaster_trainer.data.inspect.load_data

    def load(job, folder, env, say=lambda _: None):
        say("reading rows.csv [##########          ] 50% of 2.0 GB")
        load.was_said = said.wait(5)
        return real(job, folder, env, say)

    monkeypatch.setattr(trainmaster_trainer.data.inspect, "load_data", load)
    return load


def test_progress_is_said_on_stderr(tmp_path, table, capsys, slow):
    assert main(["data", write(tmp_path, job(TABLE))]) == 0
    out, err = capsys.readouterr()
    assert slow.was_said
    assert re.search(r"^reading rows.csv \[##########          \] 50% of 2.0 GB \(\d+ s\)$", err, re.MULTILINE)
    assert "50%" not in out


def test_json_has_no_progress(tmp_path, table, capsys, monkeypatch):
    monkeypatch.setattr(progress.Doing, "__init__", lambda self: pytest.fail("shows progress"))
    assert main(["data", "--json", write(tmp_path, job(TABLE))]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["rows"], err) == (120, "")


def test_progress_on_a_terminal_is_one_line():
    target = io.StringIO()
    with progress.Doing(Console(file=target, force_terminal=True, width=80)) as doing:
        doing.say("reading rows.csv")
    shown = target.getvalue()
    assert "reading rows.csv (0 s)" in shown
    assert shown.endswith("\x1b[2K")  # and nothing of it stays
