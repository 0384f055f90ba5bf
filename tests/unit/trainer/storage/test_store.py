"""One store, two kinds: what callers rely on, on disk and on an S3 server; and what it says when it can't."""

from __future__ import annotations

import fcntl
import http.server
import multiprocessing
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from trainmaster_trainer.errors import ConfigurationError, StorageDenied, StorageUnavailable
from trainmaster_trainer.storage.clients import client
from trainmaster_trainer.storage.store import LOCK, Changed, Store, open_store
from trainmaster_trainer.storage.waiting import calling, waiting

from tests.contention import count_together


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "disk":
        return Store(str(tmp_path / "run"))
    endpoint = request.getfixturevalue("endpoint")
    make_bucket(endpoint, "data")
    return s3(endpoint, f"s3://data/{tmp_path.name}")


def s3(endpoint: str, uri: str = "s3://data/p", patience: float = 5.0) -> Store:
    return Store(uri, endpoint, access_key="id", secret_key="secret", patience=patience)


def make_bucket(endpoint: str, name: str) -> None:
    import boto3

    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="id", aws_secret_access_key="secret", region_name="us-east-1"
    )
    client.create_bucket(Bucket=name)


def test_what_is_written_can_be_read_listed_and_deleted(store: Store) -> None:
    assert store.get("a/b") is None
    assert store.list() == []
    store.put("a/b", b"one")
    store.put("a/c/d", b"three")
    store.put("ab", b"")
    assert store.get("a/b") == b"one"
    assert store.list("a") == [("a/b", 3), ("a/c/d", 5)]
    assert [path for path, _ in store.list()] == ["a/b", "a/c/d", "ab"]
    store.delete("a/b", "never-there")
    assert store.get("a/b") is None
    assert store.directories("a") == ["c"]
    assert store.directories("never-there") == []
    store.delete_directory("a")
    store.delete_directory("never-there")
    assert store.list() == [("ab", 0)]


def test_download_to_a_new_folder(store: Store, tmp_path: Path) -> None:
    content, target = bytes(range(256)) * 100, tmp_path / "deep" / "target"
    store.put("x/file", content)
    store.download("x/file", target)
    assert target.read_bytes() == content
    with pytest.raises(FileNotFoundError, match="x/none"):
        store.download("x/none", target)


def test_put_if_only_on_the_version_that_was_read(store: Store) -> None:
    store.put_if("p", b"1", None)
    with pytest.raises(Changed):
        store.put_if("p", b"again", None)
    first = store.get_versioned("p")
    assert first is not None
    store.put_if("p", b"2", first[1])
    with pytest.raises(Changed):
        store.put_if("p", b"3", first[1])
    assert store.get("p") == b"2"
    assert [path for path, _ in store.list()] == ["p"], "nothing else is left behind"


def test_put_if_of_many_writers_has_one_winner_per_round(tmp_path: Path) -> None:
    """On disk; moto's conditional PUT is not atomic, so S3 has its turn with MinIO, in the integration tests."""
    assert count_together(Store(str(tmp_path)), 12) == 12


def test_it_can_be_pickled_and_rooted_deeper(store: Store) -> None:
    store.put("a/b/c", b"x")
    deeper: Store = pickle.loads(pickle.dumps(store.under("/a/b/")))
    assert deeper.get("c") == b"x"


def test_the_probe_leaves_nothing(store: Store) -> None:
    store.check()
    assert store.list() == []


def test_the_lock_is_no_object(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put_if("p", b"1", None)
    assert (tmp_path / LOCK).exists()
    assert [path for path, _ in store.list()] == ["p"]


def test_lock_does_not_stay_with_a_process_that_was_forked_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that make batches are forked while another thread saves a checkpoint."""
    store, idle = Store(str(tmp_path)), multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    read = Store.get_versioned

    def fork_first(self: Store, path: str) -> tuple[bytes, str] | None:
        idle.start()
        return read(self, path)

    monkeypatch.setattr(Store, "get_versioned", fork_first)
    store.put_if("a", b"1", None)
    try:
        with (tmp_path / LOCK).open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        idle.kill()
        idle.join()


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
    store = open_store("s3://data/p/", "http://h:1", "eu-west-1", keys)
    assert (store.bucket, store.uri, store.access_key, store.secret_key) == ("data", "s3://data/p", "id", "secret")
    assert store.session_token == "token"
    assert open_store("s3://data", None, "us-east-1", {}).under("a/b").uri == "s3://data/a/b"
    ours = {"AWS_ENDPOINT_URL": "http://env:1"}
    assert open_store("s3://data", None, "us-east-1", ours).where == "http://env:1"
    assert open_store("s3://data", "http://job:1", "us-east-1", ours).where == "http://job:1"
    assert open_store("file:///x/y", None, "us-east-1", {}).root == Path("/x/y")
    monkeypatch.chdir(tmp_path)
    assert open_store("runs", None, "us-east-1", {}).root == tmp_path / "runs"


@pytest.mark.parametrize("keys", [{}, {"access_key": "id", "secret_key": "secret"}])
def test_without_an_endpoint_it_is_aws(keys: dict[str, str]) -> None:
    """Which raised a TypeError before any request: the library takes no None for an endpoint."""
    assert client(Store("s3://bucket/x", **keys)) is not None
    assert Store("s3://bucket", **keys).where == "S3 in us-east-1"


# -- what goes wrong --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "use", [lambda s: s.check(), lambda s: s.get("x"), lambda s: s.list(), lambda s: s.directories("x")]
)
def test_a_missing_bucket_is_named_at_once(endpoint: str, use: Callable[[Store], object]) -> None:
    with pytest.raises(StorageDenied, match=rf"^bucket absent does not exist at {endpoint}; create it"):
        use(s3(endpoint, "s3://absent/p", patience=60))


def test_a_directory_that_may_not_be_written_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StorageDenied, match=r"file/run: a file is where a directory should be .*while writing .*correct storage\.uri"
    ):
        Store(str(tmp_path / "file" / "run")).check()


def test_a_server_that_stays_away_ends_the_patience() -> None:
    port = free_port()
    with pytest.raises(StorageUnavailable) as caught:
        s3(f"http://127.0.0.1:{port}", patience=0.5).put("LATEST", b"")
    assert str(caught.value) == (
        f"http://127.0.0.1:{port} has not responded for 0 s while writing LATEST in bucket data: connection refused; "
        "check storage.endpoint and the server"
    )


def test_an_outage_passes_unnoticed() -> None:
    """Nobody listens when the write begins; the server comes up while it is tried again."""
    port = free_port()
    with ThreadPoolExecutor(1) as thread:
        written = thread.submit(s3(f"http://127.0.0.1:{port}", patience=60).put, "x", b"1")
        with pytest.raises(TimeoutError):
            written.result(timeout=0.6)
        with answering([200], port) as (_, asked):
            written.result(timeout=60)
    assert asked == ["/data/p/x"]


def test_a_server_that_is_overloaded_is_asked_again() -> None:
    with answering([503, 503, 503, 500, 200]) as (address, asked):
        s3(address, patience=30).put("x", b"1")
    assert len(asked) == 5


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refusal_is_not_asked_again(status: int) -> None:
    with answering([status]) as (address, asked), pytest.raises(StorageDenied, match="refused key id while writing x"):
        s3(address, patience=30).put("x", b"1")
    assert len(asked) == 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class answering:  # noqa: N801 - reads as a sentence
    """A server that gives these statuses, one a request."""

    def __init__(self, statuses: list[int], port: int = 0) -> None:
        asked: list[str] = []
        left = iter(statuses)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                asked.append(self.path)
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(next(left))
                self.send_header("ETag", '"1"')
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self.asked = asked
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)

    def __enter__(self) -> tuple[str, list[str]]:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_address[1]}", self.asked

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"access_key": "id\n"}, "AWS_ACCESS_KEY_ID contains a space, a line break"),
        ({"secret_key": "secret\n"}, "AWS_SECRET_ACCESS_KEY contains a space, a line break"),
        ({"session_token": "to\nken"}, "AWS_SESSION_TOKEN contains a space, a line break"),
        ({"access_key": "schlüssel"}, "AWS_ACCESS_KEY_ID contains"),
        ({"secret_key": None}, "AWS_ACCESS_KEY_ID is set but AWS_SECRET_ACCESS_KEY is not"),
        ({"access_key": None}, "AWS_SECRET_ACCESS_KEY is set but AWS_ACCESS_KEY_ID is not"),
    ],
)
def test_keys_that_no_server_has_to_be_asked_about(keys: dict[str, str | None], sentence: str) -> None:
    """The client library panics on some of them, with a native stack trace and past every `except Exception`."""
    with pytest.raises(StorageDenied, match=sentence):
        replace(s3("http://127.0.0.1:1"), **keys).get("x")


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_of_another_kind_is_named_at_once(status: int) -> None:
    with (
        answering([status] * 5) as (address, _),
        pytest.raises(StorageDenied, match=r"it does not support the S3 API .*correct storage\.endpoint"),
    ):
        s3(address, patience=30).put("x", b"1")


def test_an_address_that_is_none_is_a_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r'storage address "s3://data/a#1" contains `#`'):
        open_store("s3://data/a#1", None, "us-east-1", {})


@pytest.mark.parametrize("name", ["run #1", "50%", "a?b", " x ", "a b/ü"])
def test_a_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    store = Store(str(tmp_path / name))
    store.put_if("a/b", b"1", None)
    assert (tmp_path / name / "a/b").read_bytes() == b"1"
    assert store.under("a").get("b") == b"1"


def test_a_silent_server_shows_while_it_is_silent() -> None:
    """It accepts the connection and then says nothing, as a stopped process does."""
    with socket.socket() as server, ThreadPoolExecutor(1) as thread:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert waiting(0) is None
        written = thread.submit(s3(address, patience=0.1).put, "LATEST", b"1")
        connection, _ = server.accept()
        wait = waiting(0)
        assert wait is not None
        assert (wait.where, wait.doing, wait.reason) == (address, "writing LATEST", "")
        assert abs(wait.since - time.time()) < 60
        assert str(wait).startswith(f"storage {address} has not responded since ")
        assert waiting(60) is None, "not for as long as it takes anyway"
        connection.close()
        server.close()
        with pytest.raises(StorageUnavailable):
            written.result(timeout=60)
    assert waiting(0) is None


def test_a_large_file_may_take_its_time() -> None:
    with calling("there", "writing model", 10 * 2**30), calling("there", "writing LATEST"):
        found = waiting(0)
        assert found is not None
        assert found.doing == "writing LATEST"
