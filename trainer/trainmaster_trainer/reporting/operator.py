"""Pushes progress to the operator. It never delays training, and training never fails because of it."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from trainmaster_api.messages import PROGRESS_INTERVAL_SECONDS, ProgressMessage, read_images
from trainmaster_api.names import IMAGES_HEADER

_TIMEOUT = 5.0
_LAST_WORD_SECONDS = 10.0
_TAKEN = 204


class ProgressPush:
    """Sends the newest values every 5 s from a thread of its own, and at once when it is woken."""

    def __init__(
        self,
        url: str,
        ca: str,
        token_file: str,
        newest: Callable[[], ProgressMessage],
        on_images: Callable[[tuple[str, ...]], None] = lambda images: None,
    ) -> None:
        """Start the thread.

        Args:
            url: Where messages are posted to.
            ca: File with the CA that signed the server's certificate; empty: the machine's.
            token_file: Read again for each message, because the kubelet renews it.
            newest: Makes the message.
            on_images: Called with what the operator says that the attempt's pods run, in the thread that sends.
        """
        self._url = urlsplit(url)
        self._ca = ca
        self._token_file = Path(token_file)
        self._newest = newest
        self._on_images = on_images
        self._wake = threading.Event()
        self._closed = threading.Event()
        self.last_error = ""
        self._thread = threading.Thread(target=self._loop, name="progress", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Send soon: something changed that should not wait."""
        self._wake.set()

    def close(self) -> bool:
        """Send the last message, for up to 10 s. Returns whether it was taken."""
        self._closed.set()
        self._wake.set()
        self._thread.join(timeout=_TIMEOUT)
        deadline, pause = time.monotonic() + _LAST_WORD_SECONDS, 0.2
        while not self._send():
            if time.monotonic() + pause > deadline:
                return False
            time.sleep(pause)  # back-off; there is nothing to wait on but time
            pause = min(pause * 2, 2.0)
        return True

    def _loop(self) -> None:
        while not self._closed.is_set():
            self._wake.clear()
            self._send()
            self._wake.wait(PROGRESS_INTERVAL_SECONDS)

    def _send(self) -> bool:
        try:
            token = self._token_file.read_text().strip()
            body = self._newest().model_dump_json(by_alias=True, exclude_none=True).encode()
            code, images = self._post(body, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._note(f"{type(error).__name__}: {error}")
            return False
        self._note("" if code == _TAKEN else f"status {code}")
        if code == _TAKEN and images:
            self._on_images(images)
        return code == _TAKEN

    def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, tuple[str, ...]]:
        host, port = self._url.hostname or "", self._url.port
        connection: http.client.HTTPConnection
        if self._url.scheme == "https":
            context = ssl.create_default_context(cafile=self._ca or None)
            connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
        try:
            connection.request("POST", self._url.path or "/", body, headers)
            response = connection.getresponse()
            response.read()
            return response.status, read_images(response.getheader(IMAGES_HEADER) or "")
        finally:
            connection.close()

    def _note(self, error: str) -> None:
        """Print each new error once."""
        if error and error != self.last_error:
            print(f"progress can't be sent to the operator: {error}; training continues", flush=True)
        self.last_error = error
