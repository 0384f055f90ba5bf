"""Leaks that are found before the first step, and honest tables in which nothing is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score
from trainmaster_api.spec.data import Split
from trainmaster_trainer.data.checks import check
from trainmaster_trainer.data.division import Division, Keys, divide
from trainmaster_trainer.data.duplicates import codes_of, copies, dedupe, row_ids
from trainmaster_trainer.data.finding import Finding
from trainmaster_trainer.data.scores import alone, auc
from trainmaster_trainer.data.tables.table import ARROW, Column, ColumnType, Part, Table

ROWS = 400


def table(**columns: Any) -> Table:
    """Columns of Python or numpy values, typed as reading types them."""
    found = []
    for name, values in columns.items():
        array = pa.array(values)
        kind = (
            ColumnType.TIME if pa.types.is_temporal(array.type) else
            ColumnType.BOOLEAN if pa.types.is_boolean(array.type) else
            ColumnType.INTEGER if pa.types.is_integer(array.type) else
            ColumnType.NUMBER if pa.types.is_floating(array.type) else ColumnType.TEXT
        )  # fmt: skip
        found.append(Column(name, kind, pa.chunked_array([array.cast(ARROW[kind])])))
    return Table("rows.csv", tuple(found), (Part("rows.csv", len(found[0].values), 2),), {})


def noise(seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=ROWS)


def coin(seed: int = 9) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 2, ROWS)


def random_split(rows: int = ROWS, **by: Any) -> Division:
    return divide(Split(seed=1), Keys(rows, **by))


def findings(rows: Table, target: str = "cls", *, regression: bool = False, **more: Any) -> list[Finding]:
    features = more.pop("features", [name for name in rows.names if name != target and name != more.get("group")])
    division = more.pop("division", None) or random_split(len(rows))
    return check(rows, target, features, division, is_classification=not regression, **more)


def kinds(found: list[Finding]) -> list[tuple[str, str, str]]:
    return [(each.severity, each.details["kind"], each.details.get("column", "")) for each in found]


# -- honest tables --------------------------------------------------------------------------------------------


def test_nothing_is_found_in_noise() -> None:
    days = np.datetime64("2024-01-01") + np.random.default_rng(2).permutation(ROWS)
    assert findings(table(a=noise(1), day=days, flag=coin(3) == 1, kind=np.array([*"xyz"])[noise(4).astype(int) % 3],
                          cls=coin())) == []  # fmt: skip
    assert findings(table(a=noise(1), b=coin(), y=noise(2)), "y", regression=True) == []


def test_a_good_feature_is_not_a_leak() -> None:
    y = coin()
    assert findings(table(a=y + noise(1), cls=y)) == []
    assert findings(table(a=noise(1), y=3 * noise(1) + noise(2)), "y", regression=True) == []


def test_rows_sorted_by_target_alone_are_fine() -> None:
    assert findings(table(a=noise(), cls=np.repeat(["no", "yes"], ROWS // 2))) == []


def test_a_small_table_says_nothing_of_its_features() -> None:
    rows = table(a=[1.0, 2, 3, 4, 5, 6], copy=[0, 0, 0, 1, 1, 1], cls=[0, 0, 0, 1, 1, 1])
    division = Division(np.array([0, 3]), np.array([1, 4]), np.array([2, 5]), "stratified")
    assert findings(rows, division=division) == []


# -- the target among the features ------------------------------------------------------------------------------


def with_gaps(values: np.ndarray[Any, Any]) -> list[Any]:
    return [None if row % 7 == 0 else value for row, value in enumerate(values.tolist())]


@pytest.mark.parametrize(
    ("copy", "words"),
    [
        (lambda y: y, "is equal to the target `cls`:"),
        (lambda y: y == 1, "has a value of its own"),
        (lambda y: np.where(y == 1, "churned", "stayed"), "has a value of its own"),
        (lambda y: 5.5 - y, "has a value of its own"),
        (lambda y: with_gaps(y), "is equal to the target `cls` in the 342 rows where both have a value"),
    ],
    ids=["equal", "boolean", "words", "reversed", "gaps"],
)
def test_a_copy_of_the_class_is_refused(copy: Any, words: str) -> None:
    y = coin()
    (found,) = findings(table(a=noise(), copy=copy(y), cls=y))
    assert kinds([found]) == [("refuse", "target-copy", "copy")]
    assert words in found.sentence
    assert "set data.columns.copy.role: ignore" in found.sentence


@pytest.mark.parametrize(
    "copy", [lambda y: y * 1.8 + 32, lambda y: (y * 1000).astype(np.float32).astype(float), lambda y: -y],
    ids=["other unit", "float32", "negated"],
)  # fmt: skip
def test_a_linear_copy_of_the_target_is_refused(copy: Any) -> None:
    y = 20 + 5 * noise()
    (found,) = findings(table(a=noise(3), copy=copy(y), y=y), "y", regression=True)
    assert kinds([found]) == [("refuse", "target-copy", "copy")]
    assert "times a constant plus a constant" in found.sentence


def test_the_target_among_the_features_is_refused() -> None:
    (found,) = findings(table(a=noise(), cls=coin()), features=["a", "cls"])
    assert kinds([found]) == [("refuse", "target-copy", "cls")]


def test_a_copy_in_rows_sorted_by_class_is_refused() -> None:
    y = np.repeat([0, 1], ROWS // 2)
    assert ("refuse", "target-copy", "copy") in kinds(findings(table(a=noise(), copy=1 - y, cls=y)))


def test_what_the_class_determines_is_no_copy() -> None:
    y = np.random.default_rng(0).integers(0, 3, ROWS)
    assert findings(table(a=noise(), some=y > 0, always=np.ones(ROWS), cls=y)) == []


# -- a feature that alone predicts the target -------------------------------------------------------------------


def test_an_index_of_rows_sorted_by_class_is_named() -> None:
    """The case table-index-column."""
    (found,) = findings(table(index=np.arange(ROWS), a=noise(1), cls=np.repeat(["no", "yes"], ROWS // 2)))
    assert kinds([found]) == [("warn", "sorted-by-target", "index")]
    assert "feature `index` numbers the rows" in found.sentence
    assert f"alone it has AUC {found.details['score']:.3f} on validation" in found.sentence
    assert found.details["score"] > 0.98


@pytest.mark.parametrize(
    "index",
    [
        lambda n: np.datetime64("2024-01-01T00:00:00") + np.arange(n) * np.timedelta64(1, "m"),
        lambda n: 10_000 - 3 * np.arange(n),
        lambda n: np.arange(n) * 1.0,
    ],
    ids=["upload time", "falling ids", "floats"],
)
def test_an_index_of_shuffled_rows_is_named(index: Any) -> None:
    order = np.random.default_rng(0).permutation(ROWS)
    y = np.repeat([*"abcd"], ROWS // 4)
    assert kinds(findings(table(i=index(ROWS)[order], a=noise(1), cls=y[order]))) == [("warn", "sorted-by-target", "i")]


def test_an_index_along_which_a_number_grows_is_named() -> None:
    found = findings(table(i=np.arange(ROWS), y=np.sort(noise())), "y", regression=True)
    assert ("warn", "sorted-by-target", "i") in kinds(found)


def leaks() -> dict[str, tuple[Any, Any, bool]]:
    y, dice = coin(), np.random.default_rng(5)
    three = dice.integers(0, 3, ROWS)
    number = noise(8)
    return {
        "noisy number": (y * 10 + noise(1), y, False),
        "two-sided number": (np.where(y == 1, np.sign(noise(2)) * (3 + abs(noise(3))), noise(4) / 3), y, False),
        "code finer than the class": (np.array([*"abcdef"])[y * 3 + dice.integers(0, 3, ROWS)], y, False),
        "missing for one class": ([None if each else 1.0 + row for row, each in enumerate(y)], y, False),
        "three classes": (three * 5 + noise(6) / 2, three, False),
        "three classes by word": (np.array([*"abcdefghi"])[three * 3 + dice.integers(0, 3, ROWS)], three, False),
        "square of the target": (number**3, number, True),
    }


@pytest.mark.parametrize("name", leaks())
def test_a_feature_that_predicts_alone_is_named_with_its_score(name: str) -> None:
    x, y, regression = leaks()[name]
    (found,) = findings(table(a=noise(11), leak=x, cls=y), regression=regression)
    assert kinds([found]) == [("warn", "predictor", "leak")]
    assert found.details["score"] >= 0.98
    assert f"{found.details['measure']} {found.details['score']:.3f} on validation" in found.sentence


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_auc_is_that_of_scikit_learn(levels: int) -> None:
    dice = np.random.default_rng(levels)
    true = dice.integers(0, 2, 300)
    scores = np.floor((true * 0.3 + dice.random(300)) * levels)
    assert auc(scores, true == 1) == pytest.approx(roc_auc_score(true, scores), abs=1e-12)


@pytest.mark.parametrize("classes", [0, 2, 3])
@pytest.mark.parametrize("by_value", [True, False])
def test_noise_scores_as_a_guess(classes: int, by_value: bool) -> None:
    dice = np.random.default_rng(3)
    x = dice.integers(0, 8, 4000) if by_value else dice.normal(size=4000)
    y = dice.integers(0, classes, 4000) if classes else dice.normal(size=4000)
    found = alone(x[:2000], y[:2000], x[2000:], y[2000:], classes=classes)
    assert found is not None
    expected = {0: 0.0 if by_value else -0.2, 2: 0.5, 3: 1 / 3}[classes]  # the mean of five has a fifth of the variance
    assert found.value == pytest.approx(expected, abs=0.06)


# -- between the splits -----------------------------------------------------------------------------------------


def brute_force(columns: dict[str, list[Any]]) -> list[int]:
    rows = list(zip(*columns.values(), strict=True))
    return [rows.index(row) for row in rows]


def test_equal_rows_have_one_number() -> None:
    dice = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {
        "a": dice.integers(0, 4, 200).tolist(),
        "b": [None if x == 0 else x for x in dice.integers(0, 3, 200).tolist()],
        "c": np.array(["", "x", "y"])[dice.integers(0, 3, 200)].tolist(),
        "d": (dice.integers(0, 3, 200) / 3).tolist(),
    }
    rows = table(**columns)
    assert row_ids(rows.columns, 200).tolist() == brute_force(columns)
    assert row_ids(rows.columns[:1], 200).tolist() == brute_force({"a": columns["a"]})


def test_nan_and_negative_zero_are_equal_to_themselves_and_zero() -> None:
    assert codes_of(pa.chunked_array([[0.0, -0.0, np.nan, np.nan, None]])).tolist() == [0, 0, 1, 1, 2]


def test_codes_are_those_of_the_whole_column() -> None:
    assert codes_of(pa.chunked_array([["b", "a"], [], ["a", "c"]])).tolist() == [0, 1, 1, 2]


def appended(extra: list[int]) -> Table:
    """Rows appended to a file are copies of rows that it has: the leak of table-corrected-later."""
    a, y = noise(), coin()
    return table(a=np.concatenate([a, a[extra]]), cls=np.concatenate([y, y[extra]]))


def test_appended_copies_are_counted_and_removed() -> None:
    rows = appended(list(range(100)))
    division = random_split(500)
    train, held = set(division.train.tolist()), {*division.validation.tolist(), *division.test.tolist()}
    leaked = {row for row in train if (row + 400 if row < 100 else row - 400) in held and (row < 100 or row >= 400)}
    first = min(leaked)
    (found, *_) = [each for each in findings(rows, division=division) if each.details.get("split") == "train"]
    assert found.severity == "warn"
    assert found.details["rows"] == len(leaked) > 10
    partner = first + 400 if first < 100 else first - 400
    assert f"{len(leaked)} rows of train are exact copies of rows of validation or test (row {first + 1} = row " in (
        found.sentence
    )
    assert found.details["examples"][1][0] == partner
    ids = row_ids(rows.columns, 500)
    kept = dedupe(division, ids)
    assert set(kept.train.tolist()) == train - leaked
    assert np.array_equal(kept.validation, division.validation)
    assert np.array_equal(kept.test, division.test)
    assert kept.said[-1].startswith(f"data.dedupe: {len(leaked)} rows of train are copies")
    assert not [each for each in findings(rows, division=kept) if each.details.get("split") == "train"]


def test_copies_inside_of_train_stay() -> None:
    ids = np.array([0, 0, 2, 3, 4])
    division = Division(np.array([0, 1, 2]), np.array([3]), np.array([4]), "random")
    assert dedupe(division, ids).train.tolist() == [0, 1, 2]
    assert not len(copies(ids, division.train, division.validation).rows)


def test_equal_features_with_another_target_are_no_copy() -> None:
    y = coin()
    assert findings(table(a=np.concatenate([noise(), noise()]), cls=np.concatenate([y, 1 - y]))) == []


def test_copies_between_validation_and_test_are_counted() -> None:
    rows = appended([0, 1, 2])
    division = Division(np.arange(3, 380), np.array([0, 1, 2, *range(380, 400)]), np.arange(400, 403), "random")
    (found,) = [each for each in findings(rows, division=division) if each.details["kind"] == "duplicates"]
    assert found.sentence.startswith(
        "3 rows of validation are exact copies of rows of test (row 1 = row 401; row 2 = row 402; row 3 = row 403)"
    )


@pytest.mark.parametrize("names", [np.array(["p1", "p2"]), np.arange(2), np.array([True, False])])
def test_a_group_in_two_splits_is_named(names: np.ndarray[Any, Any]) -> None:
    groups = names[np.repeat([0, 1], ROWS // 2)]
    rows = table(a=noise(), patient=groups, cls=coin())
    (found,) = findings(rows, group="patient")
    assert kinds([found]) == [("warn", "group", "patient")]
    assert found.sentence.startswith("2 of 2 groups of `patient` are in more than one split")
    assert "Set data.split.by: group" in found.sentence


def test_a_split_by_group_has_none_in_two() -> None:
    groups = np.random.default_rng(0).integers(0, 50, ROWS)
    division = divide(Split(by="group", column="g"), Keys(ROWS, values=groups))
    assert findings(table(a=noise(), g=groups, cls=coin()), group="g", division=division) == []


def test_a_class_that_a_split_lacks_is_named() -> None:
    y = np.array(["None", "often"])[np.array([1] * 397 + [0] * 3)]
    division = Division(np.arange(320), np.arange(320, 360), np.arange(360, 400), "time")
    found = findings(table(a=noise(), cls=y), division=division)
    assert [(each.details["kind"], each.details["split"]) for each in found] == [
        ("missing-class", "train"), ("missing-class", "validation")
    ]  # fmt: skip
    assert "the train split has no row of class `None` (3 rows): they can't be learned" in found[0].sentence


def test_a_split_by_time_along_which_the_classes_follow_each_other_is_named() -> None:
    y, days = np.repeat([*"ab"], ROWS // 2), np.datetime64("2024-01-01") + np.arange(ROWS) // 2
    division = divide(Split(by="time", column="day"), Keys(ROWS, values=days))
    found = findings(table(a=noise(), day=days, cls=y), features=["a"], division=division, time="day")
    assert kinds(found)[0] == ("warn", "sorted-by-target", "day")
    assert "a split by time trains on other targets" in found[0].sentence


@pytest.mark.parametrize(("words", "role"), [(["train", "test"], True), (["Training", "VAL", "test"], False)])
def test_a_column_that_says_the_split_is_named(words: list[str], role: bool) -> None:
    said = np.array(words)[np.random.default_rng(0).integers(0, len(words), ROWS)]
    rows = table(a=noise(), part=said, cls=coin())
    (found,) = findings(rows, features=["a", "part"] if role else ["a"])
    assert kinds([found]) == [("warn", "split-column", "part")]
    assert ("; it is a feature" in found.sentence) is role
    assert "set data.split.by: column and data.split.column: part" in found.sentence
    by_column = replace(random_split(), by="column")
    assert findings(rows, features=["a"], division=by_column) == []


@pytest.mark.parametrize("words", [["test"], ["train", "car"], ["test", "teste"]])
def test_a_column_with_other_words_says_no_split(words: list[str]) -> None:
    other = np.array(words)[np.random.default_rng(0).integers(0, len(words), ROWS)]
    assert findings(table(a=noise(), part=other, cls=coin())) == []
