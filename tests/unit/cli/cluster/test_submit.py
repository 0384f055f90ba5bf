"""`trainmaster submit` over a recorded cluster: what is sent, what is refused, what is said."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from trainmaster_api import names
from trainmaster_api.git_state import GitState, decode
from trainmaster_api.validation.validate import validate
from trainmaster_cli.cluster import commands, submit
from trainmaster_cli.cluster.api import NotFound, Object, jobs_path, refused
from trainmaster_cli.cluster.watching import Changed, Watcher
from trainmaster_cli.errors import UserError
from trainmaster_cli.main import _parser

from tests.factories import REMOVE, load_example

from .fake_api import FakeApi

CODE = "spec.training.code"


class Cluster(FakeApi):
    """Creates and deletes jobs; one that is watched ends as it is told to, or is deleted."""

    end = "Complete"

    def __init__(self) -> None:
        super().__init__()
        self.created: list[Object] = []
        self.deleted: list[str] = []

    def create(self, path: str, body: Object) -> Object:
        made = copy.deepcopy(body)
        made["metadata"] |= {"uid": f"u{len(self.created)}", "resourceVersion": "1"}
        assert validate(made)[1] == []
        self.objects[f"{path}/{made['metadata']['name']}"] = made
        self.created.append(made)
        return copy.deepcopy(made)

    def delete(self, path: str, uid: str) -> None:
        assert self.objects.pop(path)["metadata"]["uid"] == uid
        self.deleted.append(uid)

    def lines(self, path: str, **query: Any) -> Iterator[bytes]:
        name = query["fieldSelector"].partition("=")[2]
        job = self.objects.get(f"{path}/{name}")
        if job is None:
            event = {"type": "DELETED", "object": self.created[-1]}
        elif "status" in job:  # nothing more happens: a real watch is silent then
            threading.Event().wait()
            return iter([])
        else:
            job["status"] = {"phase": self.end, "conditions": [{"type": self.end, "status": "True"}]}
            event = {"type": "MODIFIED", "object": job}
        return iter([json.dumps(event).encode()])


@pytest.fixture
def api() -> Cluster:
    return Cluster()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "net.py").write_text("WIDTH = 1\n")
    return write(tmp_path)


def write(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    document = load_example("digits", {CODE: {"path": "src"}, "metadata.namespace": "team", **(changes or {})})
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def run(api: FakeApi, *arguments: str | Path) -> int:
    options = _parser().parse_args(["submit", *map(str, arguments)])
    return commands.COMMANDS["submit"](options, api)  # type: ignore[call-arg]


def test_small_code_travels_inside_the_job(api: Cluster, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "src" / ".env").write_text("TOKEN=1")
    assert run(api, file) == 0
    (job,) = api.created
    inline = job["spec"]["training"]["code"]["inline"]
    assert hashlib.sha256(base64.b64decode(inline["data"])).hexdigest() == inline["sha256"]
    assert job["metadata"]["namespace"] == "team"
    said = capsys.readouterr()
    assert "team/digits is submitted" in said.out
    assert f"code: 1 file, 1 KiB packed, inside the job, SHA-256 {inline['sha256'][:12]}" in said.err
    assert "names that secrets have: .env" in said.err


def commit(folder: Path) -> str:
    for command in (
        "init -q",
        "add .",
        "-c user.name=a -c user.email=a@b -c commit.gpgsign=false commit -q --allow-empty -m a",
    ):
        subprocess.run(["git", "-C", str(folder), *command.split()], check=True)
    head = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_travels_beside_the_code(api: Cluster, file: Path) -> None:
    plain = submit.prepare(str(file), None)
    head = commit(file.parent)
    (file.parent / "src" / "new.py").write_text("")
    prepared = submit.prepare(str(file), None)
    assert plain is not None
    assert prepared is not None
    found = decode(prepared.document["metadata"]["annotations"][names.ANNOTATION_GIT])
    assert found == GitState(commit=head, dirty=True, untracked=["new.py"])
    assert names.ANNOTATION_GIT not in (plain.document["metadata"].get("annotations") or {})
    (file.parent / "src" / "new.py").unlink()
    run(api, file)
    commit(file.parent)
    run(api, file)
    assert len(api.created) == 1, "the same tree at another commit is the same job"


def test_the_lock_file_is_still_named(api: Cluster, file: Path) -> None:
    (file.parent / "src" / "lock.txt").write_text("")
    (file.parent / "src" / "wheels").mkdir()
    own = {"path": "src", "requirements": "lock.txt", "wheels": "wheels"}
    prepared = submit.prepare(str(write(file.parent, {CODE: own})), None)
    assert prepared is not None
    sent = prepared.document["spec"]["training"]["code"]
    assert {key: sent[key] for key in sent if key != "inline"} == {"requirements": "lock.txt", "wheels": "wheels"}


def test_checkpoints_of_other_runs_stay_here(api: Cluster, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train.py", "out/last.pt"):
        (file.parent / "src" / name).parent.mkdir(exist_ok=True)
        (file.parent / "src" / name).write_text("")
    no_parts = {f"spec.training.{part}": REMOVE for part in ("task", "data", "model", "loop", "optimizer", "schedule")}
    script = {"spec.training.script": {"path": "train.py", "checkpoints": ["out"]}}
    prepared = submit.prepare(str(write(file.parent, {**no_parts, **script})), None)
    assert prepared is not None
    assert prepared.archive is not None
    assert "train.py" in prepared.archive.listing
    assert "out/last.pt" not in prepared.archive.listing
    run(api, file)
    assert "as the checkpoints of other runs: out/" in capsys.readouterr().err


def test_the_exit_code_is_the_job_s(api: Cluster, file: Path) -> None:
    api.end = "Failed"
    assert run(api, file) == 1


def test_the_same_job_is_followed(api: Cluster, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(api, file) == 0
    assert run(api, file) == 0
    assert len(api.created) == 1
    assert "already, with the same spec and code: it has finished; --replace runs it again" in capsys.readouterr().out


def test_another_job_of_that_name_is_not_touched(api: Cluster, file: Path) -> None:
    run(api, file)
    (file.parent / "src" / "net.py").write_text("WIDTH = 2\n")
    write(file.parent, {"spec.training.loop.seed": 7})
    with pytest.raises(UserError) as error:
        run(api, file)
    lines = str(error.value).splitlines()
    assert lines[0] == "there is a TrainingJob digits in namespace team already, which differs:"
    assert lines[1].startswith("  spec.training.code.inline.sha256: ")
    assert lines[2] == "  spec.training.loop.seed: 42 -> 7"
    assert lines[3] == "    net.py: changed"
    assert "--replace deletes it and submits this one" in lines[4]
    assert api.deleted == []
    assert run(api, "--replace", file) == 0
    assert api.deleted == ["u0"]
    assert api.created[1]["spec"]["training"]["loop"]["seed"] == 7


def test_dry_run_sends_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(None, "--dry-run", file) == 0  # type: ignore[arg-type]
    document = yaml.safe_load(capsys.readouterr().out)
    assert "inline" in document["spec"]["training"]["code"]
    assert validate(document)[1] == []


def test_ctrl_c_leaves_the_job_and_says_what_next(
    api: Cluster, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "show", interrupted)
    assert run(api, file) == 0
    out = capsys.readouterr().out
    for line in ("kubectl get tj digits -n team -w", "trainmaster logs digits -n team -f", "trainmaster stop digits"):
        assert line in out
    assert run(api, "--detach", file) == 0
    assert api.deleted == []


def large(file: Path) -> None:
    (file.parent / "src" / "weights.bin").write_bytes(os.urandom(300 * 1024))


def test_large_code_is_stored_once(
    api: Cluster, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large(file)
    store = tmp_path / "store"
    store.mkdir()
    write(file.parent, {"spec.storage": {"uri": str(store)}})
    assert run(api, file) == 0
    stored = api.created[0]["spec"]["training"]["code"]["stored"]
    assert stored["uri"] == f"{store}/team/code/{stored['sha256']}.tar.gz"
    data = Path(stored["uri"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == stored["sha256"]
    assert run(api, "--replace", file) == 0
    assert "the code is in storage already" in capsys.readouterr().out


@pytest.mark.parametrize("is_gone", [False, True])
def test_files_that_differ_are_named_where_the_other_code_is_stored(
    api: Cluster, file: Path, tmp_path: Path, is_gone: bool
) -> None:
    large(file)
    (tmp_path / "store").mkdir()
    write(file.parent, {"spec.storage": {"uri": str(tmp_path / "store")}})
    assert run(api, file) == 0
    if is_gone:
        Path(api.created[0]["spec"]["training"]["code"]["stored"]["uri"]).unlink()
    (file.parent / "src" / "weights.bin").unlink()
    (file.parent / "src" / "more.py").write_text("")
    with pytest.raises(UserError) as error:
        run(api, file)
    lines = [line.strip() for line in str(error.value).splitlines() if line.startswith("    ")]
    assert lines == ([] if is_gone else ["more.py: added", "weights.bin: removed"])


def test_large_code_needs_storage(api: Cluster, file: Path) -> None:
    large(file)
    with pytest.raises(
        UserError, match=r"set spec\.storage\.uri in the file .* the largest are weights\.bin \(300 KiB\)"
    ):
        run(api, file)


def test_storage_that_refuses_is_said(api: Cluster, file: Path, tmp_path: Path) -> None:
    large(file)
    write(file.parent, {"spec.storage": {"uri": str(tmp_path / "nowhere")}})
    with pytest.raises(UserError, match="is a directory of the pods, which this machine doesn't have"):
        run(api, file)
    (tmp_path / "store" / "team").mkdir(parents=True)
    (tmp_path / "store" / "team" / "code").write_text("a file where the folder should be")
    write(file.parent, {"spec.storage": {"uri": str(tmp_path / "store")}})
    with pytest.raises(UserError, match="the code can't be stored from here"):
        run(api, file)
    assert api.created == []


def test_an_invalid_file_is_not_sent(api: Cluster, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(file.parent, {"spec.training.model": {"class": "net:Nett"}})
    assert run(api, file) == 2
    assert "net has no 'Nett'" in capsys.readouterr().err
    assert api.created == []


def test_watch_replaces_the_job_on_a_change(
    api: Cluster, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits = iter(["same", "broken", "changed", "end"])

    def change(watcher: Watcher, seen: Any) -> None:
        step = next(waits)
        if step == "end":
            raise KeyboardInterrupt
        content = {"same": None, "broken": "s: [", "changed": None}[step]
        if content:
            file.write_text(content)
        elif step == "changed":
            write(file.parent)
            (file.parent / "src" / "net.py").write_text("WIDTH = 2\n")
        raise Changed

    monkeypatch.setattr(Watcher, "wait", change)
    assert run(api, "--watch", file) == 0
    assert api.deleted == ["u0"], "neither a touched file nor a broken one replaces the job"
    assert len(api.created) == 2
    out, err = capsys.readouterr()
    assert "team/digits is replaced" in out
    assert "job.yaml" in err


def test_watcher_sees_changes_as_one(tmp_path: Path) -> None:
    folder = tmp_path / "src"
    (folder / "sub").mkdir(parents=True)
    file = tmp_path / "job.yaml"
    file.write_text("")
    with Watcher([file, folder], quiet=0.2) as watcher:
        for path in (folder / "sub" / "a.py", file):
            seen = watcher.fresh()
            for number in range(5):
                path.write_text(str(number))
            done: list[bool] = []

            def wait(seen: Any = seen, done: list[bool] = done) -> None:
                with pytest.raises(Changed):
                    watcher.wait(seen)
                done.append(True)

            thread = threading.Thread(target=wait, daemon=True)
            thread.start()
            thread.join(20)
            assert done
            assert seen.empty()
        watcher.notice({str(tmp_path / "other.txt")})
        assert watcher.fresh().empty()


def test_refusals_of_create_and_delete() -> None:
    path = jobs_path("team")
    assert type(refused(409, "{}", "POST", path)).__name__ == "Exists"
    assert isinstance(refused(409, "{}", "DELETE", path), NotFound)
    body = json.dumps({"message": 'user cannot create resource "trainingjobs"'})
    assert "no right to create trainingjobs in namespace team; the role `edit`" in str(
        refused(403, body, "POST", f"{path}/")
    )
    assert submit.differences({"spec": 1}, {"spec": 1}) == []
