"""Installing a lock file with the real uv from an index that is a real web server, on this machine, and its faults."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from trainmaster_trainer.code.uv import indexes, settings, without_secrets
from trainmaster_trainer.errors import CodeError, CodeUnavailable

from .world import Index, World, wheel

ONCE = {"UV_HTTP_RETRIES": "0"}
NO_INDEX = "http://127.0.0.1:9/simple"
Fault = Callable[[SimpleHTTPRequestHandler], bool]


def status(code: int, only: str = "") -> Fault:
    """Return a fault that answers with a status, for paths with some word in them."""

    def answer(request: SimpleHTTPRequestHandler) -> bool:
        if only in request.path:
            request.send_error(code)
        return only in request.path

    return answer


def wants_user(request: SimpleHTTPRequestHandler) -> bool:
    expected = "Basic " + base64.b64encode(b"me:s3cr3t").decode()
    if request.headers.get("Authorization") == expected:
        return False
    request.send_response(401)
    request.send_header("WWW-Authenticate", 'Basic realm="packages"')
    request.send_header("Content-Length", "0")
    request.end_headers()
    return True


def breaks_off(only: str) -> Fault:
    """Return a fault that sends half a file and closes the connection."""

    def answer(request: SimpleHTTPRequestHandler) -> bool:
        if only not in request.path or request.command != "GET":
            return False
        file = Path(request.translate_path(request.path))
        content = (file / "index.html" if file.is_dir() else file).read_bytes()
        request.send_response(200)
        request.send_header("Content-Type", "text/html" if file.is_dir() else "application/octet-stream")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: len(content) // 2])
        request.wfile.flush()
        request.close_connection = True
        request.connection.shutdown(socket.SHUT_RDWR)
        return True

    return answer


@pytest.mark.parametrize("variable", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"])
def test_packages_come_from_the_index_that_the_environment_names(world: World, index: Index, variable: str) -> None:
    world.lock(index.add("tinyone", "1.0"), index.add("tinytwo", "2.0"))
    index.add("tinyone", "1.1")
    found = world.install(None, **{variable: index.url})
    assert found is not None
    assert (found / "tinyone.py").read_text() == "WIDTH = 1\n"
    assert sorted(path.name for path in found.glob("*.dist-info")) == ["tinyone-1.0.dist-info", "tinytwo-2.0.dist-info"]
    assert {"/simple/tinyone/", "/files/tinytwo-2.0-py3-none-any.whl"} <= set(index.asked)
    asked = len(index.asked)
    assert world.install(None, **{variable: index.url}) == found
    assert len(index.asked) == asked, "nothing is asked for what is installed"


@pytest.mark.parametrize("variable", ["UV_INDEX", "PIP_EXTRA_INDEX_URL"])
def test_a_second_index_is_asked_first(world: World, index: Index, variable: str) -> None:
    world.lock(index.add("tinyone", "1.0"))
    assert world.install(None, **ONCE, UV_DEFAULT_INDEX=NO_INDEX, **{variable: index.url}) is not None


@pytest.mark.parametrize(
    "names",
    [
        {"PIP_INDEX_URL": "http://me:s3cr3t@{host}/simple"},
        {"UV_DEFAULT_INDEX": "team={url}", "UV_INDEX_TEAM_USERNAME": "me", "UV_INDEX_TEAM_PASSWORD": "s3cr3t"},
    ],
)
def test_an_index_may_want_a_user(world: World, index: Index, names: dict[str, str]) -> None:
    world.lock(index.add("tinyone", "1.0"))
    index.fault = wants_user
    given = {name: text.format(host=index.host, url=index.url) for name, text in names.items()}
    assert world.install(None, **given) is not None


@pytest.mark.parametrize("user", ["", "me:wrong@"])
def test_an_index_that_refuses_the_user_is_final(world: World, index: Index, user: str) -> None:
    world.lock(index.add("tinyone", "1.0"))
    index.fault = wants_user
    with pytest.raises(CodeError) as error:
        world.install(None, PIP_INDEX_URL=f"http://{user}{index.host}/simple")
    assert error.value.message == (
        f"spec.training.code.requirements: the index {index.url} refuses tinyone==1.0 (401 Unauthorized); give the "
        "pods an address with a user and a password that may read it, as UV_DEFAULT_INDEX or PIP_INDEX_URL from a "
        "Secret (cluster.workers.template)"
    )


@pytest.mark.parametrize("only", ["/simple/", ".whl"])
def test_a_file_that_the_user_may_not_read_is_final(world: World, index: Index, only: str) -> None:
    world.lock(index.add("tinyone", "1.0"))
    index.fault = status(403, only)
    with pytest.raises(CodeError) as error:
        world.install(None, UV_DEFAULT_INDEX=index.url)
    assert f"the index {index.url} refuses tinyone==1.0 (403 Forbidden)" in error.value.message


def test_a_package_that_the_index_has_not_is_final(world: World, index: Index) -> None:
    world.lock(f"tinyone==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(CodeError) as error:
        world.install(None, UV_DEFAULT_INDEX=index.url)
    assert f"the index {index.url} has no wheel of tinyone for Python" in error.value.message
    index.add("tinyone", "1.1")
    with pytest.raises(CodeError) as error:
        world.install(None, UV_DEFAULT_INDEX=index.url)
    assert f"the index {index.url} has no wheel of tinyone==1.0 for Python" in error.value.message
    assert world.built() == []


def test_a_page_without_files_is_final(world: World, index: Index) -> None:
    world.lock(index.add("tinyone", "1.0"))
    (index.folder / "files" / "tinyone-1.0-py3-none-any.whl").unlink()
    index.page("tinyone")
    with pytest.raises(CodeError) as error:
        world.install(None, UV_DEFAULT_INDEX=index.url)
    assert f"the index {index.url} has no wheel of tinyone" in error.value.message


def test_a_file_that_the_page_names_and_is_not_there_is_final(world: World, index: Index) -> None:
    world.lock(index.add("tinyone", "1.0"))
    index.fault = status(404, only=".whl")
    with pytest.raises(CodeError) as error:
        world.install(None, UV_DEFAULT_INDEX=index.url)
    assert f"tinyone==1.0 from the index {index.url}: " in error.value.message
    assert "404 Not Found" in error.value.message


@pytest.mark.parametrize("is_said", [True, False], ids=["the page says it", "the page lies"])
def test_another_checksum_than_the_lock_file_s_is_final(world: World, index: Index, is_said: bool) -> None:
    world.lock(index.add("tinyone", "1.0"))
    file = index.folder / "files" / "tinyone-1.0-py3-none-any.whl"
    wheel(file.parent, "tinyone", "1.0", "import os\n")
    if is_said:
        index.page("tinyone")
    with pytest.raises(CodeError) as error:
        world.install(None, UV_DEFAULT_INDEX=index.url)
    changed = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (
        f"the file of tinyone==1.0 from the index {index.url} has the checksum sha256:{changed}, which isn't in the "
        "lock file"
    ) in error.value.message
    assert world.built() == []


def hangs(index: Index) -> Fault:
    def answer(request: SimpleHTTPRequestHandler) -> bool:
        request.close_connection = True
        return index.closing.wait(60)

    return answer


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda index: status(503), id="page: 503"),
        pytest.param(lambda index: status(429), id="page: 429"),
        pytest.param(lambda index: status(502, only=".whl"), id="file: 502"),
        pytest.param(lambda index: breaks_off("/simple/"), id="page: breaks off"),
        pytest.param(lambda index: breaks_off(".whl"), id="file: breaks off"),
        pytest.param(hangs, id="hangs"),
    ],
)
def test_an_index_that_may_recover_is_tried_again(world: World, index: Index, fault: Callable[[Index], Fault]) -> None:
    world.lock(index.add("tinyone", "1.0"))
    index.fault = fault(index)
    own = {**ONCE, "PIP_INDEX_URL": f"http://me:s3cr3t@{index.host}/simple", "UV_HTTP_TIMEOUT": "1"}
    with pytest.raises(CodeUnavailable) as error:
        world.install(None, **own)
    assert f"tinyone==1.0 can't be fetched from the index {index.url} (" in error.value.message
    assert "or bring the wheels with code.wheels" in error.value.message
    assert "s3cr3t" not in error.value.message
    assert world.built() == []
    index.fault = lambda request: False
    assert world.install(None, **own) is not None


def test_an_error_that_passes_is_not_seen(world: World, index: Index) -> None:
    world.lock(index.add("tinyone", "1.0"))
    left = [2]

    def twice(request: SimpleHTTPRequestHandler) -> bool:
        left[0] -= 1
        return left[0] >= 0 and status(503)(request)

    index.fault = twice
    assert world.install(None, UV_DEFAULT_INDEX=index.url) is not None
    assert left[0] < 0


def test_an_address_that_is_none_shows_no_password(world: World) -> None:
    world.lock(f"tinyone==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(CodeError) as error:
        world.install(None, **ONCE, PIP_INDEX_URL="http://me:s3/cr3t@127.0.0.1:9/simple")
    assert "127.0.0.1:9/simple" in error.value.message
    assert "cr3t" not in error.value.message


def test_indexes_are_named_without_users() -> None:
    own = settings(
        {"UV_INDEX": "team=https://a.example/simple https://b.example", "PIP_INDEX_URL": "https://c.example"}
    )
    assert indexes(own) == ["https://a.example/simple", "https://b.example", "https://c.example"]
    assert indexes(settings({})) == ["PyPI"]
    for address in ("https://u:p@host/x", "https://u:p@q@host/x", "https://u:p/q@host/x", "https://token@host/x"):
        assert without_secrets(address) == "https://host/x"
    assert without_secrets("https://host:8080/@scope/x") == "https://host:8080/@scope/x"
