"""The commands over a recorded cluster: what they print, ask for and change."""

from __future__ import annotations

import json
import queue
import threading
import webbrowser
from typing import Any

import pytest
from trainmaster_api.messages import ExitCode, Outcome
from trainmaster_api.names import LABEL_ATTEMPT, LABEL_INDEX, LABEL_JOB, LABEL_ROLE
from trainmaster_api.reasons import FailureClass
from trainmaster_cli.cluster import commands
from trainmaster_cli.cluster.api import jobs_path
from trainmaster_cli.cluster.stored import StoredRun
from trainmaster_cli.errors import UserError
from trainmaster_cli.main import _parser

from tests.unit.operator.policy.wrappers import Bench, at, checkpoint, clock, ended, pods, progress, said, swap

from .fake_api import FakeApi

DIGITS = f"{jobs_path('team')}/digits"


@pytest.fixture(autouse=True)
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_now", lambda: at(60))


def run(api: FakeApi, *arguments: str) -> int:
    options = _parser().parse_args(arguments)
    return commands.COMMANDS[options.subcommand](options, api)  # type: ignore[call-arg]


def trains(**fields: Any) -> Bench:
    said_now = {
        "step": 420, "total_steps": 1000, "epoch": 8, "eta_seconds": 200.0, "metric": "val/accuracy",
        "metrics": {"val/accuracy": 0.981, "train/loss": 0.1234}, "checkpoint": checkpoint(40),
        "step_time": clock(50), "time": clock(50),
    }  # fmt: skip
    bench = Bench(retries={"max": 3}).started()
    bench.plan(50, pods(), progress=progress(**{**said_now, **fields}))
    return bench


def after_a_restart() -> Bench:
    bench = Bench(retries={"max": 3}).running(10, checkpoint=checkpoint(8))
    gone = ended(1, said(Outcome.FAILED, FailureClass.WORKER_LOST, message="Worker 1 was lost", step=100), second=20)
    bench.settle(20, swap(pods(), 0, exit=gone))
    bench.plan(31)
    bench.plan(50, pods(2, 31), progress=progress(2, step=120, total_steps=1000, time=clock(50)))
    return bench


def suspended(step: int | None = 140) -> Bench:
    bench = Bench().running()
    bench.suspend(True)
    saved: dict[str, Any] = {"step": step, "checkpoint": checkpoint(step)} if step else {}
    bench.settle(20, swap(pods(), 0, exit=ended(ExitCode.STOPPED, said(Outcome.STOPPED, **saved))))
    bench.settle(25)
    return bench


def complete() -> Bench:
    bench = Bench().running()
    done = said(
        Outcome.COMPLETE, message="trained", step=1000, test_metrics={"test/accuracy": 0.98}, model_uri="s3://m"
    )
    bench.settle(20, swap(pods(), 0, exit=ended(0, done, second=20)))
    return bench


# --- ls ------------------------------------------------------------------------------------------------------------


def test_ls_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    new = {**Bench().raw, "metadata": {**Bench().raw["metadata"], "name": "a-new-one"}}
    assert run(FakeApi(trains().raw, new), "ls") == 0
    assert capsys.readouterr().out.splitlines() == [
        "NAME        PHASE     WORKERS   PROGRESS   ETA     METRIC               RESTARTS   CHECKPOINT   AGE",
        "a-new-one   Pending   -         -          -       -                    0          -            1m",
        "digits      Running   2/2       42%        3m20s   val/accuracy=0.981   0          20s          1m",
    ]


def test_ls_of_all_namespaces_and_wide(capsys: pytest.CaptureFixture[str]) -> None:
    other = {**Bench().raw, "metadata": {**Bench().raw["metadata"], "namespace": "alpha"}}
    api = FakeApi(trains().raw, other)
    assert run(api, "ls", "-A", "-o", "wide") == 0
    header, first, second = (line.split() for line in capsys.readouterr().out.splitlines())
    assert (header[:2], header[-1]) == (["NAMESPACE", "NAME"], "REASON")
    assert (first[:2], second[:2]) == (["alpha", "digits"], ["team", "digits"])
    assert second[-1] == "Training"
    assert api.asked[0][0] == jobs_path(None)


def test_ls_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    job = trains().raw
    assert run(FakeApi(job), "ls", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["items"] == [job]
    assert run(FakeApi(job), "ls", "-o", "name") == 0
    assert capsys.readouterr().out == "digits\n"


def test_ls_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FakeApi(), "ls") == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "no TrainingJobs in namespace team\n")


# --- status --------------------------------------------------------------------------------------------------------


def test_status_is_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    bench = trains()
    bench.raw["status"]["trackers"] = [{"name": "mlflow", "url": "http://mlflow/run/1"}]
    assert run(FakeApi(bench.raw), "status", "digits") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "team/digits  Running (Training)  attempt 1  2/2 workers ready  1m old",
        f"[{'#' * 12}{'-' * 18}]  42%  step 420/1000  epoch 8  ETA 3m10s",
        "  metrics       train/loss 0.1234  val/accuracy 0.981",
        "  reported      10s ago",
        "  checkpoint    step 40 of attempt 1, 20s ago",
        "  at stake      380 steps, 20s of work, if a pod were lost now",
    ]
    assert lines[lines.index("conditions") + 1].split()[:3] == ["Accepted", "True", "SpecValid"]
    assert "  mlflow        http://mlflow/run/1" in lines
    assert "  run           s3://runs/all/team/digits/uid-1" in lines
    assert lines[lines.index("next:") + 1 :] == [
        "  trainmaster logs digits -n team -f",
        "  trainmaster stop digits -n team",
        "  trainmaster open digits -n team",
    ]


def test_status_has_the_causes_of_restarts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FakeApi(after_a_restart().raw), "status", "digits") == 0
    out = capsys.readouterr().out
    assert "  restarts      1 (1 of 3 counted), 0 recoveries\n" in out
    assert "  attempt 1: WorkerLost at step 100 on node-1: Worker 1 was lost\n" in out


def test_status_of_a_job_that_nobody_has_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FakeApi(Bench().raw), "status", "digits") == 0
    out = capsys.readouterr().out
    assert out.startswith("team/digits  Pending  1m old\n")
    assert "the operator has not looked at this job yet" in out


def test_status_of_a_complete_job_asks_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FakeApi(complete().raw), "status", "digits") == 0
    out = capsys.readouterr().out
    assert "100%  step 1000/1000" in out
    assert "test/accuracy 0.98" in out
    assert "  model         s3://m" in out
    assert "at stake" not in out
    assert "ETA" not in out
    assert "trainmaster stop" not in out


def test_status_watch_prints_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    api = FakeApi(trains().raw)
    later, done = trains(step=700).raw, complete().raw
    api.changes = [later, later, done]
    assert run(api, "status", "digits", "--watch") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:4:2] for line in lines] == [["Running", "42%"], ["Running", "70%"], ["Complete", "100%"]]


def test_nothing_is_watched_when_it_is_not_shown_any_more() -> None:
    api = FakeApi(trains().raw)
    api.changes = [complete().raw]
    assert run(api, "status", "digits", "--watch") == 0
    for thread in threading.enumerate():
        if thread.name == commands.WATCH:
            thread.join(timeout=10)
            assert not thread.is_alive()
    assert sum("watch" in query for _, query in api.asked) == 1


def test_status_watch_redraws_a_page_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
    seen.put(trains(step=700).raw)
    seen.put(complete().raw)
    assert commands._live(trains().raw, seen) == 0
    assert "100%  step 1000/1000" in capsys.readouterr().out
    seen.put(UserError("the API server can't be reached"))
    with pytest.raises(UserError):
        commands._live(trains().raw, seen)
    seen.put(None)
    assert commands._live(trains().raw, seen) == 0


def test_status_watch_ends_with_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    api = FakeApi(trains().raw)
    another = complete().raw
    api.changes = [{**another, "metadata": {**another["metadata"], "uid": "another"}}]
    assert run(api, "status", "digits", "--watch") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "hint"),
    [("digit", "did you mean `digits`?"), ("xyz", "`trainmaster ls -A` shows the jobs of all namespaces")],
)
def test_a_job_that_does_not_exist_has_a_nearest_name(name: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        run(FakeApi(trains().raw), "status", name)
    assert str(caught.value) == f"no TrainingJob {name} in namespace team; {hint}"


# --- why -----------------------------------------------------------------------------------------------------------


def test_why_is_a_sentence_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(FakeApi(trains().raw), "why", "digits") == 0
    assert capsys.readouterr().out == "Nothing is wrong: step 420 of 1000, ETA 3m20s.\n"
    bad = Bench()
    bad.raw["spec"]["foo"] = 1
    bad.plan(0)
    assert run(FakeApi(bad.raw), "why", "digits") == 1
    capsys.readouterr()
    assert run(FakeApi(Bench().raw), "why", "digits") == 3


def test_why_needs_no_right_to_events(capsys: pytest.CaptureFixture[str]) -> None:
    api = FakeApi(trains().raw)
    api.refuse["/api/v1/namespaces/team/events"] = UserError("you have no right to list events")
    assert run(api, "why", "digits") == 0


# --- stop, resume, open --------------------------------------------------------------------------------------------


def test_stop_waits_and_says_at_which_step(capsys: pytest.CaptureFixture[str]) -> None:
    api = FakeApi(trains().raw)
    under_way = Bench().running()
    under_way.suspend(True)
    under_way.plan(20, pods())
    api.changes = [under_way.raw, under_way.raw, suspended().raw]
    assert run(api, "stop", "digits", "--wait") == 0
    assert api.patched == [(DIGITS, {"spec": {"run": {"suspend": True}}})]
    assert capsys.readouterr().out.splitlines() == [
        "digits will save a checkpoint and stop",
        "A checkpoint is being saved, then the pods are deleted.",
        "digits is suspended, saved at step 140; next: trainmaster resume digits -n team",
    ]


def test_stop_does_not_wait_for_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    api = FakeApi(trains().raw)
    assert run(api, "stop", "digits") == 0
    assert capsys.readouterr().out == "digits will save a checkpoint and stop\n"


def test_stop_of_a_job_that_ends_first(capsys: pytest.CaptureFixture[str]) -> None:
    api = FakeApi(trains().raw)
    api.changes = [complete().raw]
    assert run(api, "stop", "digits", "--wait") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "digits was Complete before it could be stopped: trained"


@pytest.mark.parametrize(
    ("make", "command", "text"),
    [
        (complete, "stop", "digits is Complete: there is nothing to stop"),
        (suspended, "stop", "digits is suspended already from step 140"),
        (complete, "resume", "digits is Complete: there is nothing to resume"),
        (trains, "resume", "digits is not suspended"),
    ],
)
def test_nothing_to_do_changes_nothing(make: Any, command: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    api = FakeApi(make().raw)
    assert run(api, command, "digits") == 0
    assert capsys.readouterr().out == f"{text}\n"
    assert api.patched == []


def test_resume_says_from_where(capsys: pytest.CaptureFixture[str]) -> None:
    api = FakeApi(suspended().raw)
    assert run(api, "resume", "digits") == 0
    assert api.patched == [(DIGITS, {"spec": {"run": {"suspend": False}}})]
    assert capsys.readouterr().out.startswith("digits continues from step 140; next: trainmaster status digits -n team")


def test_open_prints_the_address(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    bench = trains()
    bench.raw["status"]["trackers"] = [{"name": "mlflow", "url": "http://m/1"}, {"name": "wandb", "url": "http://w/2"}]
    api = FakeApi(bench.raw)
    assert run(api, "open", "digits") == 0
    assert run(api, "open", "digits", "--tracker", "wandb") == 0
    assert capsys.readouterr().out == "http://m/1\nhttp://w/2\n"
    assert opened == [], "not a terminal"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    run(api, "open", "digits")
    assert opened == ["http://m/1"]
    with pytest.raises(UserError, match="no address in the tracker neptune; it has mlflow, wandb"):
        run(api, "open", "digits", "--tracker", "neptune")


@pytest.mark.parametrize(
    ("tracking", "part"), [([{"mlflow": {}}], "not given one yet"), ([], "trainmaster open --dashboard")]
)
def test_open_says_why_there_is_nothing(tracking: Any, part: str) -> None:
    bench = trains()
    bench.raw["spec"]["tracking"] = tracking
    with pytest.raises(UserError, match=part):
        run(FakeApi(bench.raw), "open", "digits")


# --- logs ----------------------------------------------------------------------------------------------------------


def api_pod(role: str, index: int | None = None, attempt: int = 1) -> dict[str, Any]:
    name = f"digits-{attempt}-head" if role == "head" else f"digits-{attempt}-w-{index}"
    labels = {LABEL_JOB: "digits", LABEL_ATTEMPT: str(attempt), LABEL_ROLE: role}
    labels |= {} if index is None else {LABEL_INDEX: str(index)}
    state = {"containerStatuses": [{"name": "trainer", "state": {"running": {}}}]}
    return {"metadata": {"name": name, "uid": f"{name}-uid", "labels": labels}, "status": state}


def second(number: float, text: str) -> str:
    return f"2026-01-01T12:00:{number:06.3f}Z {text}"


def with_logs(bench: Bench | None = None) -> FakeApi:
    """Ranks are in the workers of the other number, as it may happen."""
    api = FakeApi((bench or trains()).raw)
    api.pods = [api_pod("head"), api_pod("worker", 0), api_pod("worker", 1)]
    api.logs = {
        "digits-1-head": [second(1, "training"), second(5, "step 10")],
        "digits-1-w-0": [second(2, "[rank 1] one"), second(6, "[rank 1] three"), second(7, "Stopped")],
        "digits-1-w-1": [second(3, "[rank 0] zero"), second(4.5, "[rank 0] more")],
    }
    return api


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ([], ["[head] training", "[rank 0] zero", "[rank 0] more", "[head] step 10"]),
        (["--rank", "1"], ["[rank 1] one", "[rank 1] three"]),
        (
            ["--all"],
            ["[head] training", "[rank 1] one", "[rank 0] zero", "[rank 0] more", "[head] step 10", "[rank 1] three",
             "[w-0] Stopped"],
        ),
        (["--rank", "0", "--timestamps"], [second(3, "[rank 0] zero").replace(".000", "").replace("03", "03"),
                                          second(4.5, "[rank 0] more").replace(".500", ".5")]),
    ],
)  # fmt: skip
def test_logs_of_pods_are_in_order(options: list[str], lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(with_logs(), "logs", "digits", *options) == 0
    assert capsys.readouterr().out.splitlines() == lines


def stored(monkeypatch: pytest.MonkeyPatch, objects: dict[str, list[str]]) -> None:
    def lines(self: object, path: str) -> list[bytes]:
        if path not in objects:
            raise FileNotFoundError(path)
        return [line.encode() for line in objects[path]]

    monkeypatch.setattr(StoredRun, "lines", lines)


def test_logs_survive_their_pods(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a job that has finished, the head's pod is kept and the workers' are not."""
    api = with_logs(complete())
    del api.pods[1:]
    stored(
        monkeypatch,
        {
            "logs/a1/digits-1-w-0.log": [second(2, "[rank 1] kept one")],
            "logs/a1/digits-1-w-1.log": [second(3, "[rank 0] kept zero"), "[trainmaster] 5 lines were left out"],
        },
    )
    assert run(api, "logs", "digits") == 0
    assert capsys.readouterr().out.splitlines() == [
        "[head] training", "[rank 0] kept zero", "[w-1] [trainmaster] 5 lines were left out", "[head] step 10",
    ]  # fmt: skip
    assert run(api, "logs", "digits", "--rank", "1") == 0
    assert capsys.readouterr().out == "[rank 1] kept one\n"


def test_logs_of_the_attempt_before(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi(after_a_restart().raw)
    stored(monkeypatch, {"logs/a1/digits-1-w-0.log": [second(2, "[rank 0] the first try")]})
    assert run(api, "logs", "digits", "--previous", "--rank", "0") == 0
    assert capsys.readouterr().out == "[rank 0] the first try\n"
    with pytest.raises(UserError, match="digits is in its first attempt"):
        run(FakeApi(trains().raw), "logs", "digits", "--previous")


def test_logs_that_can_not_be_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def lines(self: object, path: str) -> list[bytes]:
        raise UserError("its storage can't be read from here: no route")

    monkeypatch.setattr(StoredRun, "lines", lines)
    with pytest.raises(UserError, match="the pods of attempt 1 are gone, and its storage can't be read from here"):
        run(FakeApi(complete().raw), "logs", "digits")
    api = with_logs(complete())
    del api.pods[1:]
    assert run(api, "logs", "digits") == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == ["[head] training", "[head] step 10"]
    assert "some of the log can't be read: its storage" in err


def test_logs_of_a_job_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="digits has no attempt yet, so no log"):
        run(FakeApi(Bench().raw), "logs", "digits")
    stored(monkeypatch, {})
    with pytest.raises(UserError, match="attempt 1 of digits has left no log"):
        run(FakeApi(trains().raw), "logs", "digits")
    with pytest.raises(UserError, match="there is no rank 2: digits has 2 workers, with ranks 0 to 1"):
        run(with_logs(), "logs", "digits", "--rank", "2")


def test_logs_follow_over_a_connection_that_breaks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainmaster_cli.cluster.logs._POLL_SECONDS", 0.01)
    api = with_logs()
    del api.pods[1:]
    path = "/api/v1/namespaces/team/pods/digits-1-head"
    api.objects[path] = api.pods[0]
    parts = [[second(6, "step 11")], [second(6, "step 11"), second(7, "step 12")]]
    lines = api.lines

    def breaks(asked: str, **query: Any) -> Any:
        if not query.get("follow"):
            return lines(asked, **query)
        if len(parts) == 1:  # the pod ends, and with it the job
            api.objects[path] = {**api.pods[0], "status": {}}
            api.objects[DIGITS] = complete().raw
        return iter([line.encode() for line in parts.pop(0)])

    monkeypatch.setattr(api, "lines", breaks)
    assert run(api, "logs", "digits", "-f") == 0
    assert capsys.readouterr().out.splitlines() == [
        "[head] training", "[head] step 10", "[head] step 11", "[head] step 12",
    ]  # fmt: skip


def test_logs_follow_to_the_end(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line once and the rest as it comes, until the job has finished."""
    monkeypatch.setattr("trainmaster_cli.cluster.logs._POLL_SECONDS", 0.01)
    api = with_logs()
    api.later = {
        "digits-1-head": [second(5, "step 10"), second(5.5, "step 11")],
        "digits-1-w-1": [second(8, "[rank 0] late")],
    }
    get, looks = api.get, iter(range(100))

    def later(path: str, **query: Any) -> Any:
        if path == DIGITS and next(looks) > 2:
            api.objects[DIGITS] = complete().raw
        return get(path, **query)

    monkeypatch.setattr(api, "get", later)
    assert run(api, "logs", "digits", "-f") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[:4] == ["[head] training", "[rank 0] zero", "[rank 0] more", "[head] step 10"]
    assert sorted(lines[4:]) == ["[head] step 11", "[rank 0] late"]
    assert err.endswith("digits is Complete\n")
    follows = [(path, query["sinceTime"]) for path, query in api.asked if query.get("follow")]
    assert dict(follows)["/api/v1/namespaces/team/pods/digits-1-head/log"] == "2026-01-01T12:00:05Z"
    assert not any("digits-1-w-0" in path for path, _ in follows), "of rank 1"
