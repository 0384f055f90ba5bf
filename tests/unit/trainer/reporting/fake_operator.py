"""The end of the operator that takes progress."""

from __future__ import annotations

import http.server
import queue
import threading
from typing import Any

from trainmaster_api.messages import ProgressMessage


class Operator(http.server.ThreadingHTTPServer):
    code = 204
    images = ""

    def __init__(self) -> None:
        self.seen: queue.Queue[tuple[str, ProgressMessage]] = queue.Queue()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.seen.put((self.headers["Authorization"], ProgressMessage.decode(body)))
                self.send_response(outer.code)
                if outer.images:
                    self.send_header("X-Trainmaster-Images", outer.images)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/progress"
