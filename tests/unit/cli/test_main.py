"""The command line: sentences and exit codes, never a traceback; nothing heavy until it is needed."""

import io
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import yaml
from trainmaster_api.names import ANNOTATION_JOB
from trainmaster_cli.main import main

from tests.unit.api.samples import TABLE, job

ROOT = Path(__file__).parents[3]
DIGITS = str(ROOT / "examples/digits/trainingjob.yaml")


def write(folder: Path, document, name: str = "job.yaml") -> str:
    file = folder / name
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False))
    return str(file)


def test_validate_accepts_an_example(capsys):
    assert main(["validate", DIGITS]) == 0
    out, err = capsys.readouterr()
    assert out == f"{DIGITS}: TrainingJob digits is valid\n"
    assert err == ""


def test_validate_names_file_line_and_every_problem(tmp_path, capsys):
    bad = write(tmp_path, job({"spec.foo": 1, "spec.cluster.workers.count": 3}))
    assert main(["validate", bad]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"{bad}:11: spec.training.data.batchSize = 32: is not a multiple of 3 workers x 1 gradientAccumulation; "
        "next is 33",
        f"{bad}:15: spec.foo = 1: unknown field: known fields are training, tuning, hyperparameterSearch, "
        "tracking, storage, checkpoint, cluster, run",
    ]


def test_a_path_is_read_as_utf8_in_any_locale(tmp_path):
    """The module beside the job is imported by a process that the command starts."""
    folder = tmp_path / "größe"
    folder.mkdir()
    (folder / "own.py").write_text("class Net:\n    def __init__(self, hidden): ...\n")
    model = {"class": "own:Net", "args": {"hidden": 3}}
    file = write(folder, job({"spec.training.model": model, "spec.training.data.source": "sklearn:digits"}))
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-P", "-m", "trainmaster_cli.main", "validate", file, str(folder / "none.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
    assert done.stdout.decode() == f"{file}: TrainingJob sample is valid\n"
    assert done.stderr.decode() == f"trainmaster: file {folder}/none.yaml does not exist\n"


def test_validate_imports_the_users_code_unless_told_not_to(tmp_path, capsys):
    (tmp_path / "own.py").write_text("class Net:\n    def __init__(self, hidden): ...\n")
    model = {"class": "own:Net", "args": {"hiden": 3}}
    bad = write(tmp_path, job({"spec.training.model": model, "spec.training.data.source": "sklearn:digits"}))
    assert main(["validate", bad]) == 2
    line = Path(bad).read_text().splitlines().index("        hiden: 3") + 1
    assert (
        f"{bad}:{line}: spec.training.model.args.hiden = 3: Net has no such argument; its arguments are hidden; "
        "did you mean `hidden`?\n" in capsys.readouterr().err
    )
    assert main(["validate", "--no-imports", bad]) == 0
    assert main(["render", "--image", "trainer:1", bad]) == 0


def test_validate_looks_at_every_file_and_document(tmp_path, capsys):
    several = write(tmp_path, yaml.safe_dump_all([job(), job({"kind": "Pod"}), job({"metadata.name": "other"})]))
    assert main(["validate", "nowhere.yaml", several, DIGITS]) == 2
    out, err = capsys.readouterr()
    assert [line.split()[-3] for line in out.splitlines()] == ["sample", "other", "digits"]
    assert "trainmaster: file nowhere.yaml does not exist" in err
    assert 'kind = "Pod": must be TrainingJob' in err


def test_validate_reads_standard_input(monkeypatch, capsys):
    text = json.dumps(job({"spec.training.loop.duration": "5"}))
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(text.encode())))
    assert main(["validate", "-"]) == 2
    assert capsys.readouterr().err.startswith("standard input:1: spec.training.loop.duration")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: str(folder), "is a directory; pass the TrainingJob's file"),
        (lambda folder: str(folder / "none.yaml"), "does not exist"),
        (lambda folder: "a\0b", "can't be read"),
        (lambda folder: write(folder, ""), "contains no TrainingJob"),
        (lambda folder: write(folder, "a: [1\nb: 2"), "can't be read as YAML"),
        (lambda folder: write(folder, "- 1\n"), "not a TrainingJob, but a list"),
    ],
)
def test_an_unusable_file_is_a_sentence(tmp_path, capsys, make, sentence):
    assert main(["validate", make(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err


def test_a_file_that_is_no_text(tmp_path, capsys):
    (tmp_path / "x.yaml").write_bytes(b"a: \xff\xfe")
    assert main(["validate", str(tmp_path / "x.yaml")]) == 2
    assert "is not text: byte 3 is not UTF-8" in capsys.readouterr().err


def test_relative_data_is_looked_up_beside_the_file(tmp_path, capsys):
    file = write(tmp_path, job(TABLE))
    assert main(["validate", file]) == 2
    assert (
        f'spec.training.data.source = "rows.csv": file {tmp_path / "rows.csv"} does not exist'
        in capsys.readouterr().err
    )
    (tmp_path / "rows.csv").write_text("a,y\n1,2\n")
    assert main(["validate", file]) == 0


def test_image_folders_are_looked_up_and_buckets_are_not(tmp_path, capsys):
    file = write(tmp_path, job({"spec.training.data.source": "images:pictures"}))
    assert main(["validate", file]) == 2
    assert f"folder {tmp_path / 'pictures'} does not exist" in capsys.readouterr().err
    packed = write(tmp_path, job({"spec.training.data.source": "images:pictures.tar.gz"}))
    assert main(["validate", packed]) == 2
    assert f"file {tmp_path / 'pictures.tar.gz'} does not exist" in capsys.readouterr().err
    (tmp_path / "pictures.tar.gz").touch()
    assert main(["validate", packed]) == 0
    assert main(["validate", write(tmp_path, job({"spec.training.data.source": "images:s3://bucket/p"}))]) == 0
    assert main(["validate", write(tmp_path, job(TABLE, {"spec.training.data.source": "/mnt/rows.csv"}))]) == 0


@pytest.mark.parametrize("name", ["my rows #1.csv", "50%.csv", "a?b.csv", "../beside.csv", "./rows.csv"])
def test_a_data_file_may_have_any_name(tmp_path, name):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / name).write_text("a,y\n1,2\n")
    file = write(tmp_path / "job", job(TABLE, {"spec.training.data.source": name}), "my job.yaml")
    assert main(["validate", file]) == 0


@pytest.mark.parametrize("uri", ["s3://runs/exp#1", "s3://runs/exp?1", "s3://runs//double//x", "s3:/runs/x"])
def test_an_address_that_is_none_is_found_by_validate(tmp_path, capsys, uri):
    assert main(["validate", write(tmp_path, job({"spec.storage.uri": uri}))]) == 2
    assert f'spec.storage.uri = "{uri}": ' in capsys.readouterr().err


def test_render_prints_what_the_operator_would_create(tmp_path, capsys):
    file = write(tmp_path, job({"spec.cluster.workers.count": 2, "spec.tracking": [{"mlflow": {}}]}))
    assert main(["render", file, "--namespace", "team", "--image", "trainer:7"]) == 0
    objects = list(yaml.safe_load_all(capsys.readouterr().out))
    found = [(item["kind"], item["metadata"]["name"], item["metadata"]["namespace"]) for item in objects]
    assert found == [
        ("Secret", "sample-run", "team"),
        ("Service", "trainmaster-heads", "team"),
        ("Pod", "sample-1-head", "team"),
        ("Pod", "sample-1-w-0", "team"),
        ("Pod", "sample-1-w-1", "team"),
    ]
    assert objects[0]["stringData"]["ray-key"] == "<random key>"
    assert json.loads(objects[2]["metadata"]["annotations"][ANNOTATION_JOB])["spec"]["cluster"]["image"] == "trainer:7"
    assert objects[3]["spec"]["containers"][0]["image"] == "trainer:7"


def test_render_refuses_what_validate_refuses(tmp_path, capsys):
    assert main(["render", write(tmp_path, job({"spec.foo": 1}))]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "unknown field" in err


def fake_trainer(monkeypatch) -> list:
    calls: list = []
    module = types.ModuleType("trainmaster_trainer.driver.local")
    module.main = lambda options, job: calls.append((options, job)) or 75  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trainmaster_trainer.driver.local", module)
    return calls


def test_run_hands_over_to_the_trainer_and_returns_its_code(monkeypatch):
    calls = fake_trainer(monkeypatch)
    assert main(["run", DIGITS, "--workers", "3", "--storage", "spec", "--tracking", "off", "--no-progress"]) == 75
    ((options, job),) = calls
    assert (options.file, options.workers, options.storage, options.tracking) == (DIGITS, 3, "spec", "off")
    assert (options.plain, options.fresh, options.trackers) == (True, False, [])
    assert job.metadata.name == "digits"


@pytest.mark.parametrize(
    ("flags", "tracking", "trackers"),
    [
        ([], "local", []),
        (["--mlflow", "off"], "off", []),
        (["--mlflow", "spec"], "spec", []),
        (["--tracking", "spec"], "spec", []),
        (["--mlflow", "http://m:5000"], "local", [{"mlflow": {"uri": "http://m:5000"}}]),
    ],
)
def test_where_a_run_is_shown(monkeypatch, flags, tracking, trackers):
    calls = fake_trainer(monkeypatch)
    assert main(["run", DIGITS, *flags]) == 75
    ((options, _),) = calls
    assert (options.tracking, [entry.wire() for entry in options.trackers]) == (tracking, trackers)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--mlflow", "mlflow:5000"], "'mlflow:5000' is not the address of a tracking server, such as http://"),
        (["--mlflow", "http://m", "--tracking", "spec"], "are mutually exclusive; pass one of them"),
    ],
)
def test_a_tracker_that_makes_no_sense(monkeypatch, capsys, flags, sentence):
    calls = fake_trainer(monkeypatch)
    assert main(["run", DIGITS, *flags]) == 2
    assert sentence in capsys.readouterr().err
    assert calls == []


def test_run_takes_no_standard_input(monkeypatch, capsys):
    calls = fake_trainer(monkeypatch)
    assert main(["run", "-"]) == 2
    assert "`run` needs a file" in capsys.readouterr().err
    assert calls == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (json.dumps(job({"spec.foo": 1})), "unknown field"),
        (yaml.safe_dump_all([job(), job()]), "holds 2 TrainingJobs; `run` accepts exactly one"),
    ],
)
def test_run_finds_a_bad_file_before_it_loads_the_trainer(monkeypatch, tmp_path, capsys, text, sentence):
    calls = fake_trainer(monkeypatch)
    assert main(["run", write(tmp_path, text)]) == 2
    assert sentence in capsys.readouterr().err
    assert calls == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["run"], "FILE"),
        (["run", DIGITS, "--workers", "0"], "'0' must be an integer of at least 1"),
        (["render", DIGITS, "--namespace", "A B"], "is not a valid namespace"),
    ],
)
def test_a_wrong_command_is_a_sentence(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err


def test_the_plugin_of_kubectl_is_called_so(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/kubectl-trainmaster", "--help"])
    with pytest.raises(SystemExit):
        main(["--help"])
    assert capsys.readouterr().out.startswith("usage: kubectl trainmaster ")


def test_version_option(capsys):
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith("trainmaster 0.")


def test_help_loads_nothing_heavy_and_is_quick():
    code = (
        "import sys\n"
        "from trainmaster_cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'ray', 'pydantic', 'yaml', 'kopf', 'mlflow', 'kubernetes'} & set(sys.modules)))\n"
    )
    fastest = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        fastest = min(fastest, time.perf_counter() - start)
        assert done.stdout.splitlines()[-1] == "[]"
    assert fastest < 0.3, f"`trainmaster --help` took {fastest:.2f} s"


def test_validate_and_render_load_neither_torch_nor_ray():
    code = (
        "import sys\n"
        "from trainmaster_cli.main import main\n"
        f"assert main(['validate', {DIGITS!r}]) == 0\n"
        f"assert main(['render', {DIGITS!r}]) == 0\n"
        "print(sorted({'torch', 'ray', 'kopf', 'mlflow', 'aiohttp'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_output_closed_early_is_no_error():
    code = f"import sys\nfrom trainmaster_cli.main import main\nsys.exit(main(['render', {DIGITS!r}]))\n"
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "$CODE" | head -1; echo ${{PIPESTATUS[0]}}'],
        env={"CODE": code, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in done.stderr


def test_validate_imports_from_the_code_s_folder(tmp_path, capsys):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "own.py").write_text("class Net:\n    def __init__(self, hidden): ...\n")
    model = {"class": "own:Net", "args": {"hiden": 3}}
    given = {"spec.training.model": model, "spec.training.data.source": "sklearn:digits"}
    bad = write(tmp_path, job({**given, "spec.training.code": {"path": "src"}}))
    assert main(["validate", bad]) == 2
    assert "spec.training.model.args.hiden = 3: Net has no such argument" in capsys.readouterr().err
    missing = write(tmp_path, job({**given, "spec.training.code": {"path": "sources"}}))
    assert main(["validate", missing]) == 2
    assert f'spec.training.code.path = "sources": folder {tmp_path}/sources does not exist' in capsys.readouterr().err
    elsewhere = write(tmp_path, job({**given, "spec.training.code": {"image": "/app"}}))
    assert main(["validate", elsewhere]) == 0, "the code is in an image, which isn't here"


def test_validate_reads_the_lock_file(tmp_path, capsys):
    """A package that it brings need not be on this machine; a misspelled module of one's own is still found."""
    given = {"spec.training.model": {"class": "net:Net"}}
    code = {"path": "src", "requirements": "lock.txt", "wheels": "wheels"}
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "net.py").write_text("import not_on_this_machine\n")
    file = write(tmp_path, job({**given, "spec.training.code": code}))
    assert main(["validate", file]) == 2
    said = capsys.readouterr().err
    assert f'spec.training.code.requirements = "lock.txt": file {tmp_path}/src/lock.txt does not exist' in said
    assert f'spec.training.code.wheels = "wheels": folder {tmp_path}/src/wheels does not exist' in said
    (tmp_path / "src" / "wheels").mkdir()
    (tmp_path / "src" / "lock.txt").write_text("numpy>=2\n")
    assert main(["validate", file]) == 2
    said = capsys.readouterr().err
    assert "spec.training.code.requirements: lock.txt: line 1: `numpy>=2` must be NAME==VERSION" in said
    (tmp_path / "src" / "lock.txt").write_text(f"not-on-this-machine==1.0 --hash=sha256:{'0' * 64}\n")
    assert main(["validate", file]) == 0
    (tmp_path / "src" / "net.py").write_text("import net.part\n")
    assert main(["validate", file]) == 2
    assert "No module named 'net.part'" in capsys.readouterr().err
