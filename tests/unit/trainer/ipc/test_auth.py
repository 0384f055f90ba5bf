"""The handshake without a network; test_channel.py has it over sockets."""

from __future__ import annotations

import hashlib
import hmac
import socket
import threading

import pytest
from trainmaster_trainer.ipc import auth

TOKEN = "t" * 64
SERVER, CLIENT = "a" * 64, "c" * 64


def proof(role: str, token: str = TOKEN) -> str:
    """Compute a proof without the module under test."""
    text = f"trainmaster/{role}/{SERVER}/{CLIENT}".encode()
    return hmac.new(token.encode(), text, hashlib.sha256).hexdigest()


def test_accept_answers_with_the_proof_of_the_server() -> None:
    answer = auth.accept(TOKEN, SERVER, f"{CLIENT} {proof('client')}".encode())
    assert answer == f"{proof('server')}\n".encode()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        CLIENT.encode(),
        f"{CLIENT} {proof('client', 'wrong')}".encode(),
        f"{CLIENT} {proof('server')}".encode(),
        f"{CLIENT[:-1]} {proof('client')}".encode(),
        f"{CLIENT} {proof('client')} more".encode(),
        f"{CLIENT} {proof('client')[:-1]}\xe9".encode("latin-1"),
    ],
)
def test_accept_refuses(line: bytes) -> None:
    assert auth.accept(TOKEN, SERVER, line) is None


def test_accept_refuses_a_replayed_answer() -> None:
    recorded = f"{CLIENT} {proof('client')}".encode()
    assert auth.accept(TOKEN, SERVER, recorded) is not None
    assert auth.accept(TOKEN, "b" * 64, recorded) is None


def test_nonce_is_new_each_time() -> None:
    found = {auth.nonce() for _ in range(100)}
    assert len(found) == 100
    assert {len(nonce) for nonce in found} == {64}


@pytest.mark.parametrize(
    ("greeting", "role", "token", "reason"),
    [
        (f"{SERVER}\n", "server", "wrong", "failed to authenticate"),
        (f"{SERVER}\n", "client", TOKEN, "failed to authenticate"),
        ("SSH-2.0\n", "", "", "not a Trainmaster driver"),
        ("", "", "", "do both sides have the same token"),
        ("x" * 300, "", "", "closed during the handshake"),
    ],
)
def test_connect_refuses_a_server(greeting: str, role: str, token: str, reason: str) -> None:
    """A server of another token, one that sends the client's own proof back, and none of ours."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, connection.makefile("rwb", buffering=0) as stream:
                stream.write(greeting.encode())
                if role:
                    client_nonce = stream.readline().split()[0].decode()
                    stream.write(f"{auth.sign(token, role, SERVER, client_nonce)}\n".encode())

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(auth.Refused, match=reason):
            auth.connect(server.getsockname(), TOKEN, 10)
        thread.join()


def test_connect_leaves_what_follows_the_handshake() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, connection.makefile("rwb", buffering=0) as stream:
                stream.write(f"{SERVER}\n".encode())
                answer = auth.accept(TOKEN, SERVER, stream.readline().strip())
                assert answer is not None
                stream.write(answer + b"first\n")

        thread = threading.Thread(target=serve)
        thread.start()
        with auth.connect(server.getsockname(), TOKEN, 10) as connection, connection.makefile("rb") as stream:
            assert stream.readline() == b"first\n"
        thread.join()
