"""An endpoint on this machine that speaks Kubeflow Trainer's status protocol (KEP-2779).

Libraries that report to it, such as transformers since 5.24, then report here without a change. They post percent, ETA
and metrics at most every 5 s, and ignore what is answered.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .steps import Progress

_MOST_BYTES = 64 * 1024
# What transformers calls steps among its metrics.
_STEP, _TOTAL, _EPOCH = "current_step", "total_steps", "current_epoch"


class Relay:
    """Takes what libraries report and tells it to `Progress`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._token = secrets.token_hex(16)
        self._file = tempfile.NamedTemporaryFile("w", prefix="status-token-")  # noqa: SIM115 - as long as this lives
        self._file.write(self._token)
        self._file.flush()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    def start(self) -> None:
        """Answer from now on."""
        threading.Thread(target=self._server.serve_forever, name="status-relay", daemon=True).start()

    def stop(self) -> None:
        """Close the endpoint."""
        self._server.shutdown()
        self._server.server_close()
        with contextlib.suppress(FileNotFoundError):
            self._file.close()

    def environment(self) -> dict[str, str]:
        """Return the variables by which libraries find it."""
        return {
            "KUBEFLOW_TRAINER_SERVER_URL": f"http://127.0.0.1:{self._server.server_port}/status",
            "KUBEFLOW_TRAINER_SERVER_TOKEN": str(Path(self._file.name)),
        }

    def take(self, status: dict[str, Any]) -> None:
        """Tell what a status says."""
        values: dict[str, float] = {}
        for each in status.get("metrics") or ():
            with contextlib.suppress(TypeError, ValueError, KeyError):
                values[str(each["name"])] = float(each["value"])
        step, total, epoch = values.pop(_STEP, None), values.pop(_TOTAL, None), values.pop(_EPOCH, None)
        percent = status.get("progressPercentage")
        if total is None and isinstance(percent, int | float) and 0 < percent <= 100 and self._progress.step:
            total = self._progress.step * 100 / percent
        self._progress.tell(
            int(step) if step is not None else None,
            round(total) if total is not None else None,
            int(epoch) if epoch is not None else None,
            values,
        )

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Take a status."""
                self.send_response(relay._answer(self))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: the program's output is its own."""

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler) -> int:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return 401
        length = request.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > _MOST_BYTES:
            return 413
        try:
            status = json.loads(request.rfile.read(int(length)))["trainerStatus"]
            self.take(status)
        except (ValueError, KeyError, TypeError, AttributeError):
            return 400
        return 200
