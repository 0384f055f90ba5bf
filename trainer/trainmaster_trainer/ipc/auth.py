"""Proof of the attempt's token in both directions, without sending it.

    server: nonce                       a new one for each connection, so a recorded answer is useless
    client: nonce, HMAC("client", both)
    server: HMAC("server", both)        a client sends no message to a server that can't prove the token

The roles are part of what is signed: neither side can be made to sign for the other.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket

HANDSHAKE_SECONDS = 10.0
LINE_LIMIT = 256  # bytes that a peer may send before it has proved anything
_NONCE_BYTES = 32


class Refused(ConnectionError):  # noqa: N818 - an answer, not an error
    """The other side doesn't know the token, or doesn't speak this protocol."""


def nonce() -> str:
    """Return a new random nonce, as hex."""
    return secrets.token_hex(_NONCE_BYTES)


def sign(token: str, role: str, server_nonce: str, client_nonce: str) -> str:
    """Return a side's proof."""
    text = f"trainmaster/{role}/{server_nonce}/{client_nonce}"
    return hmac.new(token.encode(), text.encode(), hashlib.sha256).hexdigest()


def accept(token: str, server_nonce: str, line: bytes) -> bytes | None:
    """Check a client's answer; return the server's own proof, None if the client doesn't know the token."""
    words = line.decode("ascii", "replace").split()
    if len(words) != 2 or len(words[0]) != 2 * _NONCE_BYTES:
        return None
    client_nonce, proof = words
    expected = sign(token, "client", server_nonce, client_nonce)
    if not hmac.compare_digest(proof.encode(), expected.encode()):
        return None
    return sign(token, "server", server_nonce, client_nonce).encode() + b"\n"


def connect(address: tuple[str, int], token: str, timeout: float = HANDSHAKE_SECONDS) -> socket.socket:
    """Open a connection whose two sides have proved the token to each other.

    Raises:
        Refused: The server closed the connection, or couldn't prove the token.
        OSError: There is no server.
    """
    connection = socket.create_connection(address, timeout=timeout)
    try:
        server_nonce = _line(connection)
        if len(server_nonce) != 2 * _NONCE_BYTES:
            raise Refused("the server is not a Trainmaster driver")
        client_nonce = nonce()
        proof = sign(token, "client", server_nonce, client_nonce)
        connection.sendall(f"{client_nonce} {proof}\n".encode())
        if not hmac.compare_digest(_line(connection), sign(token, "server", server_nonce, client_nonce)):
            raise Refused("the server failed to authenticate")
    except BaseException:
        connection.close()
        raise
    return connection


def _line(connection: socket.socket) -> str:
    """Read one line, byte by byte, so that no byte after it is consumed."""
    found = b""
    while not found.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte or len(found) >= LINE_LIMIT:
            raise Refused("the connection was closed during the handshake; do both sides have the same token?")
        found += byte
    return found.strip().decode("ascii", "replace")
