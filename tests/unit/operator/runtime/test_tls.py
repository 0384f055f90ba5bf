"""Certificates that someone else renews, and a Secret that someone takes away."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from trainmaster_operator.kube.errors import UnreachableError
from trainmaster_operator.runtime import tls

from testbed.pki import Authority
from tests.unit.operator.kube.fake_api import FakeApi, connect

HOST = "op.svc"
SECRETS = "/api/v1/namespaces/system/secrets"


def issued(folder: Path, file: str) -> tls.Certificates:
    """A certificate by the CA in the folder; another file name, another certificate."""
    authority = Authority(folder)
    pair = authority.issue(file, file, names=[HOST])
    return tls.from_files(authority.ca.cert, pair.cert, pair.key)


class Server:
    """What follows certificates: a server whose clients trust the CA of the start."""

    def __init__(self, first: tls.Certificates) -> None:
        self.first, self.found = first, [first]
        self.context = first.server_context()
        self.looked: asyncio.Queue[None] = asyncio.Queue()
        self.known: list[tls.Certificates] = []

    async def look(self, now: tls.Certificates) -> tls.Certificates:
        """The newest of `found`; an empty list: the API server doesn't answer."""
        self.known.append(now)
        self.looked.put_nowait(None)
        if not self.found:
            raise UnreachableError(0, "Down", "no answer")
        return self.found[-1]

    @asynccontextmanager
    async def run(self) -> AsyncIterator[asyncio.Task[None]]:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=self.context)
        self.port = server.sockets[0].getsockname()[1]
        following = asyncio.create_task(tls.follow(self.look, self.first, self.context, 0.001))
        try:
            yield following
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            server.close()
            await server.wait_closed()

    async def looks(self, times: int = 2) -> None:
        """Await so many whole looks that begin from now on."""
        while not self.looked.empty():
            self.looked.get_nowait()
        for _ in range(times + 1):  # the first may have begun before, the last says that the one before has ended
            await asyncio.wait_for(self.looked.get(), 10)

    async def served(self) -> bytes:
        trusting = ssl.create_default_context(cadata=self.first.ca)
        _, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=trusting, server_hostname=HOST)
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return found


def der(certificates: tls.Certificates) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificates.cert)


async def test_a_renewed_certificate_is_served_without_a_restart(tmp_path: Path) -> None:
    server = Server(issued(tmp_path, "first"))
    async with server.run():
        assert await server.served() == der(server.first)
        renewed = issued(tmp_path, "renewed")
        server.found.append(renewed)
        await server.looks()
        assert await server.served() == der(renewed)
        assert server.known[-1] == renewed, "the next look has to know what is served now"


@pytest.mark.parametrize("broken", ["key of another", "torn file", "nothing"])
async def test_what_cannot_be_served_changes_nothing(tmp_path: Path, broken: str) -> None:
    server = Server(issued(tmp_path, "first"))
    renewed = issued(tmp_path, "renewed")
    async with server.run() as following:
        server.found = {
            "key of another": [tls.Certificates(renewed.ca, renewed.cert, server.first.key)],
            "torn file": [tls.Certificates(renewed.ca, renewed.cert[:200], renewed.key)],
            "nothing": [],
        }[broken]
        await server.looks()
        assert await server.served() == der(server.first)
        assert not following.done()
        server.found = [renewed]
        await server.looks()
        assert await server.served() == der(renewed)


async def test_another_ca_ends_it(tmp_path: Path) -> None:
    """The wiring of new jobs and peers has the CA from the start, so the process restarts."""
    server = Server(issued(tmp_path / "a", "first"))
    async with server.run() as following:
        server.found = [issued(tmp_path / "b", "second")]
        await asyncio.wait_for(following, 10)


async def test_a_secret_that_was_deleted_is_put_back_as_it_was() -> None:
    """Running jobs trust its CA: a new one would cost their progress."""
    api = FakeApi()
    async with connect(api) as client:
        made = await tls.ensure(client, "system", "tls", (HOST,))
        assert await tls.ensure(client, "system", "tls", (HOST,), made) == made
        api.drop(SECRETS, "tls")
        assert await tls.ensure(client, "system", "tls", (HOST,), made) == made
        assert await tls.ensure(client, "system", "tls", (HOST,)) == made, "the next start finds it"


async def test_secret_for_other_names_is_replaced_at_the_start_only() -> None:
    """While a release is renamed, replicas of both names run: each would undo what the other wrote."""
    api = FakeApi()
    async with connect(api) as client:
        old = await tls.ensure(client, "system", "tls", (HOST,))
        new = await tls.ensure(client, "system", "tls", ("renamed.svc",))
        assert new != old
        assert await tls.ensure(client, "system", "tls", (HOST,), old) == old
        assert await tls.ensure(client, "system", "tls", ("renamed.svc",), new) == new


@pytest.mark.parametrize("data", [{}, {"ca.crt": "x", "tls.crt": "x", "tls.key": "x"}])
async def test_a_secret_that_someone_broke_ends_nothing(tmp_path: Path, data: dict[str, str]) -> None:
    server = Server(issued(tmp_path, "first"))
    api = FakeApi()
    async with connect(api) as client:
        api.put(SECRETS, "tls", data=data, metadata={"annotations": {tls.NAMES_ANNOTATION: HOST}})

        async def look(now: tls.Certificates) -> tls.Certificates:
            server.looked.put_nowait(None)
            return await tls.ensure(client, "system", "tls", (HOST,), now)

        server.look = look  # type: ignore[method-assign]
        async with server.run() as following:
            await server.looks()
            assert not following.done()
            assert await server.served() == der(server.first)
