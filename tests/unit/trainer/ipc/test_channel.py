"""The channel between the driver, its agents and launchers."""

from __future__ import annotations

import contextlib
import queue
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from trainmaster_api.messages import CheckpointRef
from trainmaster_trainer.context import Report, ReportKind
from trainmaster_trainer.ipc import auth
from trainmaster_trainer.ipc import channel as channels
from trainmaster_trainer.ipc.channel import Channel, Peer
from trainmaster_trainer.ipc.link import Link, ask
from trainmaster_trainer.ipc.messages import LINE_LIMIT, Hello, Leaving, Left, Message, Progress, Stop, encode

TOKEN = "t" * 64


class Inbox:
    """Hears everything; lets launchers go at once."""

    def __init__(self) -> None:
        self.joined: queue.Queue[Peer] = queue.Queue()
        self.left: queue.Queue[Peer] = queue.Queue()
        self.messages: queue.Queue[tuple[Peer, Message]] = queue.Queue()

    def on_join(self, peer: Peer) -> None:
        self.joined.put(peer)

    def on_message(self, peer: Peer, message: Message) -> None:
        self.messages.put((peer, message))
        if isinstance(message, Leaving):
            peer.send(Left(saved=True))

    def on_leave(self, peer: Peer) -> None:
        self.left.put(peer)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def channel(inbox: Inbox) -> Iterator[Channel]:
    channel = Channel("127.0.0.1", 0, TOKEN, inbox)
    yield channel
    channel.close()


def address(channel: Channel) -> tuple[str, int]:
    return ("127.0.0.1", channel.port)


def agent(channel: Channel, rank: int = 0) -> Link:
    link = Link(auth.connect(address(channel), TOKEN))
    link.send(Hello(role="agent", rank=rank, pod="p"))
    return link


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def receive(link: Link) -> Message:
    found: list[Message] = []

    def arrived() -> bool:
        found.extend(link.receive() or [])
        return bool(found)

    until(arrived)
    return found[0]


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side hangs up, whatever it says before."""
    connection.settimeout(10)
    with contextlib.suppress(ConnectionError):
        while connection.recv(4096):
            pass
    return True


def test_a_report_arrives_as_it_was(channel: Channel, inbox: Inbox) -> None:
    report = Report(
        kind=ReportKind.CHECKPOINT, step=5, total_steps=100, epoch=1, eta_seconds=12.5, metrics={"val/loss": 0.25},
        checkpoint=CheckpointRef(step=5, attempt=2, uri="s3://b/x", time="2026-01-01T00:00:00Z"), message="words",
    )  # fmt: skip
    agent(channel, rank=3).send(Progress(report=report, generation=2))
    peer, message = inbox.messages.get(timeout=10)
    assert peer.hello.rank == 3
    assert message == Progress(report=report, generation=2)


def test_a_loss_that_is_not_a_number_arrives_as_such(channel: Channel, inbox: Inbox) -> None:
    metrics = {"train/loss": float("nan"), "val/loss": float("inf")}
    agent(channel).send(Progress(report=Report(kind=ReportKind.STEP, step=1, total_steps=2, epoch=0, metrics=metrics)))
    _, message = inbox.messages.get(timeout=10)
    assert isinstance(message, Progress)
    assert repr(message.report.metrics) == repr(metrics)


def test_an_agent_hears_the_driver(channel: Channel, inbox: Inbox) -> None:
    link = agent(channel)
    inbox.joined.get(timeout=10).send(Stop())
    assert receive(link) == Stop()


def test_the_end_of_a_connection_is_noticed(channel: Channel, inbox: Inbox) -> None:
    link = agent(channel)
    peer = inbox.joined.get(timeout=10)
    link.close()
    assert inbox.left.get(timeout=10) is peer


def test_a_launcher_gets_its_answer(channel: Channel) -> None:
    assert ask(address(channel), TOKEN, Leaving(pod="w-1", ip="10.0.0.2"), 5) == Left(saved=True)


def test_connect_while_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert ask(("127.0.0.1", port), TOKEN, Leaving(pod="w-1", ip="10.0.0.2"), 1) is None


# --- who may speak ----------------------------------------------------------------------------------------------------


def test_a_wrong_token_is_refused(channel: Channel, inbox: Inbox) -> None:
    with pytest.raises(auth.Refused):
        auth.connect(address(channel), "wrong")
    assert ask(address(channel), "wrong", Leaving(pod="w-1", ip="10.0.0.2"), 5) is None
    assert inbox.joined.empty()


def test_the_token_is_never_sent(monkeypatch: pytest.MonkeyPatch, channel: Channel, inbox: Inbox) -> None:
    sent: list[bytes] = []
    plain = socket.socket.sendall
    monkeypatch.setattr(socket.socket, "sendall", lambda self, data: (sent.append(bytes(data)), plain(self, data))[1])
    agent(channel)
    inbox.joined.get(timeout=10)
    assert sent
    assert TOKEN.encode() not in b"".join(sent)


def test_a_recorded_answer_is_worthless(channel: Channel, inbox: Inbox) -> None:
    """Every connection has another challenge."""
    answers = []
    for answer in (None, "replay"):
        with socket.create_connection(address(channel)) as connection:
            server_nonce = connection.makefile().readline().strip()
            client_nonce = "c" * 64
            proof = auth.sign(TOKEN, "client", server_nonce, client_nonce)
            answers.append(f"{client_nonce} {proof}\n".encode())
            connection.sendall(answers[0] if answer else answers[-1])
            if answer:
                assert is_closed(connection)
            else:
                assert connection.recv(4096).strip()
    assert answers[0] != answers[1]


def test_a_client_s_proof_is_not_a_server_s(channel: Channel) -> None:
    """A peer that only repeats what it hears proves nothing."""
    with socket.create_connection(address(channel)) as connection:
        server_nonce = connection.makefile().readline().strip()
        echoed = auth.sign(TOKEN, "server", server_nonce, server_nonce)
        connection.sendall(f"{server_nonce} {echoed}\n".encode())
        assert is_closed(connection)


def test_client_sends_nothing_to_an_unproven_server() -> None:
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def impostor() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"a" * 64 + b"\n")
                heard.append(connection.recv(4096))
                connection.sendall(b"b" * 64 + b"\n")
                heard.append(connection.recv(4096))

        thread = threading.Thread(target=impostor)
        thread.start()
        assert ask(("127.0.0.1", server.getsockname()[1]), TOKEN, Leaving(pod="w", ip="1"), 5) is None
        thread.join()
    assert b"leaving" not in b"".join(heard)


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x00\xff\n", b"[1]\n", b"x" * 300, b"a b\n", b"\n"])
def test_noise_harms_nothing(channel: Channel, inbox: Inbox, noise: bytes) -> None:
    with socket.create_connection(address(channel)) as connection:
        connection.sendall(noise)
        assert is_closed(connection)
    agent(channel)
    assert inbox.joined.get(timeout=10).hello.pod == "p"
    assert inbox.joined.empty()


@pytest.mark.parametrize(
    "first",
    [encode(Stop()), b"{}\n", b'{"type":"hello","role":"king"}\n', b"x" * (LINE_LIMIT + 1)],
)
def test_who_knows_the_token_must_still_introduce_itself(channel: Channel, inbox: Inbox, first: bytes) -> None:
    with auth.connect(address(channel), TOKEN) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(first)
        assert is_closed(connection)
    assert inbox.joined.empty()
    assert inbox.messages.empty()


# --- many, slow and broken ones ---------------------------------------------------------------------------------------


def test_a_torn_line_is_put_together(channel: Channel, inbox: Inbox) -> None:
    with auth.connect(address(channel), TOKEN) as connection:
        for byte in encode(Hello(role="agent", rank=7)) + encode(Stop()) + encode(Stop())[:-1]:
            connection.sendall(bytes([byte]))
        assert inbox.joined.get(timeout=10).hello.rank == 7
        assert inbox.messages.get(timeout=10)[1] == Stop()
    inbox.left.get(timeout=10)
    assert inbox.messages.empty(), "a line without an end is not a message"


def test_a_peer_that_hangs_blocks_nobody(channel: Channel, inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that proves nothing nor one that takes nothing."""
    monkeypatch.setattr(channels, "_MOST_UNSENT", 1 << 16)
    with socket.create_connection(address(channel)):
        deaf = agent(channel, rank=1)
        peer = inbox.joined.get(timeout=10)
        other = agent(channel, rank=2)
        heard = inbox.joined.get(timeout=10)
        big = Progress(report=Report(kind=ReportKind.WARNING, step=1, total_steps=2, epoch=0, message="x" * 100_000))
        for _ in range(200):
            peer.send(big)
        heard.send(Stop())
        assert receive(other) == Stop()
        assert inbox.left.get(timeout=10) is peer, "unread messages are not kept indefinitely"
        deaf.close()


def test_a_peer_that_proves_nothing_has_to_go(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "MOST_UNPROVED", 3)
    idle = [socket.create_connection(address(channel)) for _ in range(5)]
    assert is_closed(idle[0])
    assert is_closed(idle[1])
    agent(channel).close()
    for connection in idle:
        connection.close()


def test_a_handshake_has_an_end(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "HANDSHAKE_SECONDS", 0.05)
    channel = Channel("127.0.0.1", 0, TOKEN, inbox)
    with socket.create_connection(address(channel)) as connection:
        assert is_closed(connection)
    channel.close()


def test_1024_agents_without_a_thread_for_each(channel: Channel, inbox: Inbox) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3000:
        pytest.skip("this process may not open 2,048 sockets")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3000), hard))
    threads = threading.active_count()
    began = time.monotonic()
    links = [agent(channel, rank) for rank in range(1024)]
    peers = [inbox.joined.get(timeout=20) for _ in links]
    assert sorted(peer.hello.rank for peer in peers) == list(range(1024))
    assert threading.active_count() == threads
    for peer in peers:
        peer.send(Stop())
    assert {type(receive(link)) for link in links} == {Stop}
    assert time.monotonic() - began < 60
    for link in links:
        link.close()
    for _ in links:
        inbox.left.get(timeout=20)


def test_report_to_a_lost_driver_returns_at_once(inbox: Inbox) -> None:
    channel = Channel("127.0.0.1", 0, TOKEN, inbox)
    link = agent(channel)
    inbox.joined.get(timeout=10)
    channel.close()
    began = time.monotonic()
    for _ in range(1000):
        link.send(Progress(report=Report(kind=ReportKind.STEP, step=1, total_steps=2, epoch=0)))
    assert time.monotonic() - began < 5, "a step would have waited"
