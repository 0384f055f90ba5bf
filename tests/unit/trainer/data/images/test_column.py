"""Tables with a column of images: paths, bytes, and what a struct of both is; the same images as in a folder."""

from __future__ import annotations

import io
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from moto.server import ThreadedMotoServer
from PIL import Image
from trainmaster_api.spec.job import TrainingJob
from trainmaster_trainer.data import Prepared, load_data
from trainmaster_trainer.data.differences import what_changed
from trainmaster_trainer.data.fingerprint import take
from trainmaster_trainer.data.inspect import inspect
from trainmaster_trainer.errors import ConfigurationError, DataError
from trainmaster_trainer.export.package import load_package

from tests.factories import Changes
from tests.unit.trainer.harness import run_store, samples, small_job, train

ROWS = 60
PATHS = [f"pictures/{'ab'[number % 2]}/{number:02}.png" for number in range(ROWS)]
LABELS = ["ab"[number % 2] for number in range(ROWS)]
EVERYTHING = np.arange(ROWS)
KEYS = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}


def picture(number: int) -> bytes:
    """Bright for odd numbers, dark for even ones."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 120, (9, 9, 3)) + 120 * (number % 2)
    Image.fromarray(noise.astype(np.uint8)).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, path in enumerate(PATHS):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
    return tmp_path


def job_of(source: str = "rows.csv", *changes: Changes, regression: bool = False, **data: Any) -> TrainingJob:
    asked = {
        "source": source, "target": "label", "columns": {"file": {"role": "image"}}, "imageSize": 8, "batchSize": 8,
    }  # fmt: skip
    task = {"name": "regression" if regression else "classification"}
    model = {"name": "cnn", "args": {"widths": [8]}}
    return small_job(
        {"spec.training.data": asked | data, "spec.training.task": task, "spec.training.model": model}, *changes
    )


def write(root: Path, name: str = "rows.csv", **columns: Any) -> None:
    frame = pd.DataFrame({"file": PATHS, "label": LABELS} | columns)
    frame.to_csv(root / name, index=False) if name.endswith(".csv") else frame.to_parquet(root / name)


def loaded(root: Path, job: TrainingJob | None = None) -> Prepared:
    return load_data(job or job_of(), root, {})


def refused(root: Path, job: TrainingJob | None = None) -> str:
    with pytest.raises((DataError, ConfigurationError)) as caught:
        loaded(root, job)
    return str(caught.value)


def of_folder(root: Path) -> torch.Tensor:
    """The same images in the order of the table, by the folder."""
    data = {"source": "images:pictures", "imageSize": 8, "batchSize": 8}
    job = small_job({"spec.training.data": data, "spec.training.task": {"name": "classification"}})
    rows = load_data(job, root, {}).rows
    order = [rows.content.paths.index(path.removeprefix("pictures/")) for path in PATHS]  # type: ignore[attr-defined]
    return samples(rows, np.array(order))


def test_paths_in_a_csv_equal_the_folder(root: Path) -> None:
    write(root)
    data = loaded(root)
    _, y = data.rows.batch(EVERYTHING)
    assert torch.equal(samples(data.rows, EVERYTHING), of_folder(root))
    assert data.rows.labels == ["a", "b"]
    assert y.tolist() == [0, 1] * 30
    assert data.rows.shape == (3, 8, 8)


@pytest.mark.parametrize("kind", ["bytes", "struct", "paths", "only-paths"])
def test_parquet_equals_the_folder(root: Path, kind: str) -> None:
    content = [picture(number) for number in range(ROWS)]
    images: Any = {
        "bytes": content,
        "struct": [{"bytes": each, "path": f"somewhere/{index}.png"} for index, each in enumerate(content)],
        "paths": [{"bytes": None, "path": path} for path in PATHS],
        "only-paths": PATHS,
    }[kind]
    table = pa.table({"file": images, "label": LABELS})
    for number in range(2):  # two files of several row groups
        (root / "rows").mkdir(exist_ok=True)
        pq.write_table(table.slice(30 * number, 30), root / "rows" / f"{number}.parquet", row_group_size=7)
    data = loaded(root, job_of("rows", format="parquet", images={"root": "."}))
    assert torch.equal(samples(data.rows, EVERYTHING), of_folder(root))


def test_validation_and_test_have_tables_of_their_own(root: Path) -> None:
    frame = pd.DataFrame({"file": PATHS, "label": LABELS})
    for name, rows in (("rows.csv", slice(0, 40)), ("later.csv", slice(40, 50)), ("last.csv", slice(50, 60))):
        frame[rows].to_csv(root / name, index=False)
    data = loaded(root, job_of("rows.csv", validationSource="later.csv", testSource="last.csv"))
    assert (sorted(data.train), sorted(data.validation)) == (list(range(40)), list(range(40, 50)))
    assert torch.equal(samples(data.rows, EVERYTHING), of_folder(root))


def test_tables_in_other_folders_need_a_root_of_their_images(root: Path) -> None:
    """A path that is relative to the table may be another image there."""
    write(root)
    (root / "other").mkdir()
    write(root, "other/later.csv")
    assert refused(root, job_of("rows.csv", validationSource="other/later.csv")).endswith("set data.images.root")
    data = loaded(root, job_of("rows.csv", validationSource="other/later.csv", images={"root": "."}))
    assert sorted(data.validation) == list(range(60, 120))


def test_model_trains_on_a_table_of_images(root: Path) -> None:
    write(root)
    longer: Changes = {
        "spec.training.loop.duration": "20ep",
        "spec.training.optimizer": {"name": "adamw", "lr": 0.02},
        "spec.training.data.images": {"augment": [{"name": "randomHorizontalFlip"}]},
    }
    job = job_of("rows.csv", longer)
    result = train(job, root)
    assert result.test_metrics["test/accuracy"] == 1.0
    model = load_package(run_store(job, root))
    some: list[bytes | Path] = [root / PATHS[0], picture(1), root / PATHS[2]]
    assert [model.labels[number] for number in model.predict_images(some).tolist()] == ["a", "b", "a"]
    data = loaded(root, job)
    assert torch.equal(
        model.predict_images([root / path for path in PATHS]), model.predict(samples(data.rows, EVERYTHING))
    )
    with pytest.raises(DataError, match=r"none\.png can't be read: no such file"):
        model.predict_images([root / "none.png"])
    with pytest.raises(DataError, match="an image can't be read: unknown image format"):
        model.predict_images([b"junk"])


@pytest.mark.parametrize("kind", ["paths", "bytes"])
def test_rows_can_be_sent_to_another_process(root: Path, kind: str) -> None:
    if kind == "paths":
        write(root)
    else:
        content = [picture(number) for number in range(ROWS)]
        pq.write_table(pa.table({"file": content, "label": LABELS}), root / "rows.parquet")
    rows = loaded(root, job_of("rows.csv" if kind == "paths" else "rows.parquet")).rows
    assert torch.equal(samples(pickle.loads(pickle.dumps(rows)), EVERYTHING), of_folder(root))


def test_regression_on_images(root: Path) -> None:
    brightness = [float(np.asarray(Image.open(root / path)).mean()) for path in PATHS]
    write(root, label=brightness)
    data = loaded(root, job_of(regression=True))
    train_rows = np.array(brightness)[data.train]
    assert data.target_mean == pytest.approx(train_rows.mean())
    assert data.target_std == pytest.approx(train_rows.std())
    x, (_, y) = samples(data.rows, EVERYTHING), data.rows.batch(EVERYTHING)
    np.testing.assert_allclose(y.numpy(), brightness)
    assert float(torch.corrcoef(torch.stack([x.mean(dim=(1, 2, 3)).double(), y]))[0, 1]) > 0.999


def test_root_of_the_paths(root: Path) -> None:
    (root / "lists" / "deep").mkdir(parents=True)
    names = [path.removeprefix("pictures/") for path in PATHS]
    expected = of_folder(root)
    for spelling, images in (
        (names, {"root": "pictures"}),
        (names, {"root": str(root / "pictures")}),
        ([f"./b/../{name}" for name in names], {"root": "pictures"}),
        ([f"../../pictures/{name}" for name in names], {}),
        ([str(root / path) for path in PATHS], {}),
    ):
        write(root, "lists/deep/rows.csv", file=spelling)
        found = loaded(root, job_of("lists/deep/rows.csv", images=images))
        assert torch.equal(samples(found.rows, EVERYTHING), expected)


def test_folder_of_files_is_where_its_paths_start(root: Path) -> None:
    (root / "pictures" / "part-0.csv").write_text(
        "file,label\n" + "".join(f"{path.removeprefix('pictures/')},{path[9]}\n" for path in PATHS)
    )
    found = loaded(root, job_of("pictures", format="csv"))
    assert torch.equal(samples(found.rows, EVERYTHING), of_folder(root))


def test_missing_and_broken_files_are_named_at_once(root: Path) -> None:
    write(root)
    (root / PATHS[7]).unlink()
    (root / PATHS[20]).write_bytes(b"junk")
    message = refused(root)
    assert message.startswith(
        "2 images of 60 can't be read: rows.csv: row 8, column file: 'pictures/b/07.png': no such"
    )
    assert "rows.csv: row 21, column file: 'pictures/a/20.png': unknown image format" in message
    for path in PATHS[:25]:
        (root / path).unlink(missing_ok=True)
    assert " and 15 more. Replace or remove them" in refused(root)


def test_broken_bytes_are_named_by_row(root: Path) -> None:
    content = [picture(number) for number in range(ROWS)]
    pq.write_table(pa.table({"file": [*content[:59], b"junk"], "label": LABELS}), root / "rows.parquet")
    assert refused(root, job_of("rows.parquet")).startswith(
        "1 image of 60 can't be read: rows.parquet: row 60, column file: unknown image format"
    )


def test_missing_cells_are_errors_or_dropped(root: Path) -> None:
    write(root, file=[None, *PATHS[1:]])
    for how in ("error", "impute"):
        assert "rows.csv: row 1, column file: is empty. Correct the cells, or set data.missing to drop" in refused(
            root, job_of(missing=how)
        )
    data = loaded(root, job_of(missing="drop"))
    assert torch.equal(samples(data.rows, np.array([0])), of_folder(root)[1:2])
    assert len(data.rows) == 59
    assert "dropped: 1 of 60 rows" in data.about()


def test_bytes_in_some_rows_and_paths_in_others(root: Path) -> None:
    images = [{"bytes": picture(0), "path": None}, *({"bytes": None, "path": path} for path in PATHS[1:])]
    pq.write_table(pa.table({"file": images, "label": LABELS}), root / "rows.parquet")
    assert "row 2, column file: has a path and no bytes" in refused(root, job_of("rows.parquet"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (list(range(ROWS)), "'file' is of type integer (row 1: 0, row 2: 1, row 3: 2) and can't be image, which takes"),
        ([[1]] * ROWS, "'file' holds list<"),
        ([None] * ROWS, "'file' has no value in any row"),
    ],
)
def test_columns_that_have_no_images(root: Path, values: list[Any], words: str) -> None:
    pq.write_table(pa.table({"file": values, "label": LABELS}), root / "rows.parquet")
    assert words in refused(root, job_of("rows.parquet"))


def test_column_that_is_not_there(root: Path) -> None:
    write(root)
    assert "has no column 'fil' (did you mean 'file'?)" in refused(root, job_of(columns={"fil": {"role": "image"}}))


@pytest.mark.parametrize(
    ("images", "words"),
    [({"root": "nowhere"}, "data.images.root nowhere: no such folder"), ({"root": "lists"}, "60 images of 60")],
)
def test_root_that_is_wrong(root: Path, images: dict[str, Any], words: str) -> None:
    (root / "lists").mkdir()
    write(root)
    assert words in refused(root, job_of(images=images))


def test_split_goes_by_other_columns(root: Path) -> None:
    write(root, person=[number // 6 for number in range(ROWS)], age=list(range(ROWS)))
    columns = {"file": {"role": "image"}, "person": {"role": "group"}}
    data = loaded(root, job_of(columns=columns, split={"by": "group"}))
    groups = [{int(row) // 6 for row in part} for part in (data.train, data.validation, data.test)]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert "left out: age: the model sees the images of file" in data.about()
    assert "file    text     image" in data.about()


def test_report_without_training(root: Path) -> None:
    write(root)
    found = inspect(job_of(), root, {})
    assert found.heading()[0] == "rows.csv: 60 rows, 2 of 2 columns, 1 feature"
    assert ("file", "text", "image", "0", "60") in [line[:5] for line in found.columns()]


@pytest.mark.parametrize("kind", ["paths", "bytes"])
def test_copies_of_images_between_splits(root: Path, kind: str) -> None:
    """A column says the split, so that each copy is where it should not be."""
    parts = ["train"] * 40 + ["validation"] * 10 + ["test"] * 10
    numbers = [*range(58), 0, 1]  # rows 59 and 60 are rows 1 and 2 again
    images = [PATHS[number] if kind == "paths" else picture(number) for number in numbers]
    pq.write_table(pa.table({"file": images, "label": LABELS, "part": parts}), root / "rows.parquet")
    split = {"by": "column", "column": "part"}
    data = loaded(root, job_of("rows.parquet", split=split))
    assert any(
        "2 rows of train are exact copies of rows of validation or test (row 1 = row 59" in words
        for words in data.warnings
    )
    deduped = loaded(root, job_of("rows.parquet", split=split, dedupe=True))
    assert sorted(deduped.train) == list(range(2, 40))


@pytest.mark.parametrize("kind", ["paths", "bytes"])
def test_copies_are_files_and_not_paths(root: Path, kind: str) -> None:
    """Another name, or another way to write it, is the same image; another target makes it a copy all the same."""
    parts = ["train"] * 40 + ["validation"] * 10 + ["test"] * 10
    shutil.copy(root / PATHS[0], root / "again.png")
    (root / "link.png").symlink_to(root / PATHS[1])
    extra = ["again.png", "./link.png"]
    images = [*PATHS[:58], *extra]
    cells = images if kind == "paths" else [(root / path).read_bytes() for path in images]
    labels = [*LABELS[:58], LABELS[0], next(label for label in LABELS if label != LABELS[1])]
    pq.write_table(pa.table({"file": cells, "label": labels, "part": parts}), root / "rows.parquet")
    split = {"by": "column", "column": "part"}
    warnings = loaded(root, job_of("rows.parquet", split=split)).warnings
    assert any("2 rows of train are exact copies of rows of validation or test (row 1 = row 59" in w for w in warnings)
    assert any(words.startswith("1 image with a copy in another class") for words in warnings)
    deduped = loaded(root, job_of("rows.parquet", split=split, dedupe=True))
    assert sorted(deduped.train) == list(range(2, 40))
    assert "data.dedupe: 2 rows of train are copies" in deduped.about()


def test_paths_that_nobody_declared_are_pointed_out(root: Path) -> None:
    write(root, age=list(range(ROWS)))
    data = loaded(root, job_of(columns={}))
    assert "left out: file: text that ends as names of images do; declare image to use them" in data.about()


# -- identity ---------------------------------------------------------------------------------------------------------
def changed(root: Path, job: TrainingJob, change: Any) -> list[str]:
    before = take(job, root, {})
    change()
    after = take(job, root, {}, before)
    found = what_changed(before, after)
    assert (before.digest == after.digest) is (found == [])
    return found


def test_fingerprint_has_the_table_and_its_images(root: Path) -> None:
    write(root)
    found = take(job_of(), root, {})
    assert (found.count, [file.path for file in found.files]) == (61, ["rows.csv", *sorted(PATHS)])
    other = root / "pictures" / "a" / "other.png"
    assert changed(root, job_of(), lambda: other.write_bytes(b"not named by the table")) == []
    size = len(picture(1))
    assert changed(root, job_of(), lambda: (root / PATHS[2]).write_bytes(picture(1))) == [
        f"{PATHS[2]}: {size:,} bytes, before {len(picture(2)):,}"
        if size != len(picture(2))
        else f"{PATHS[2]}: other content, {size:,} bytes"
    ]
    assert changed(root, job_of(), (root / PATHS[3]).unlink) == [f"{PATHS[3]}: removed ({len(picture(3)):,} bytes)"]
    table = (root / "rows.csv").read_text()
    assert changed(root, job_of(), lambda: (root / "rows.csv").write_text(table + f"{other},a\n")) == [
        f"{other}: added (22 bytes)",
        f"rows.csv: {len(table) + len(f'{other},a') + 1:,} bytes, before {len(table):,}; 62 lines, before 61",
    ]


def test_fingerprint_of_bytes_is_that_of_the_table(root: Path) -> None:
    content = [picture(number) for number in range(ROWS)]
    pq.write_table(pa.table({"file": content, "label": LABELS}), root / "rows.parquet")
    assert [file.path for file in take(job_of("rows.parquet"), root, {}).files] == ["rows.parquet"]


def test_fingerprint_needs_no_framework(root: Path) -> None:
    write(root)
    code = (
        "import sys, pathlib; from trainmaster_trainer.data.fingerprint import take;"
        "from trainmaster_api.spec.job import TrainingJob;"
        "job = TrainingJob.model_validate_json(sys.stdin.read());"
        "print(take(job, pathlib.Path(sys.argv[1]), {}).count, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)],
        input=job_of().model_dump_json(by_alias=True),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["61", "False"]


# -- S3 ---------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_table_and_images_on_s3(root: Path, endpoint: str) -> None:
    import boto3

    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1"
    )
    client.create_bucket(Bucket="sets")
    for number, path in enumerate(PATHS):
        client.put_object(Bucket="sets", Key=f"v1/{path}", Body=picture(number))
    spellings = [PATHS[0], f"s3://sets/v1/{PATHS[1]}", f"../v1/{PATHS[2]}", *PATHS[3:]]
    storage: Changes = {"spec.storage": {"uri": "s3://sets/runs", "endpoint": endpoint}}

    def written(paths: list[str]) -> TrainingJob:
        text = pd.DataFrame({"file": paths, "label": LABELS}).to_csv(index=False)
        client.put_object(Bucket="sets", Key="v1/rows.csv", Body=text.encode())
        return job_of("s3://sets/v1/rows.csv", storage)

    job = written(spellings)
    assert torch.equal(samples(load_data(job, root, KEYS).rows, EVERYTHING), of_folder(root))
    assert take(job, root, KEYS).count == 61
    job = written([*spellings[:57], "/abs.png", "s3://other/x.png", "none.png"])
    with pytest.raises(DataError) as caught:
        load_data(job, root, KEYS)
    assert str(caught.value).startswith("3 images of 60 can't be read: ")
    for words in ("'/abs.png': is an absolute path", "'s3://other/x.png': is in another bucket", "'none.png': no such"):
        assert words in str(caught.value)
