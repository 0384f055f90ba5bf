"""Code with a lock file, wheels that the test writes, and an index on this machine that serves them."""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from trainmaster_api.spec.code import Code
from trainmaster_api.spec.storage import Storage
from trainmaster_trainer.code.install import install
from trainmaster_trainer.code.installed import packages_of


def wheel(folder: Path, name: str, version: str, content: str = "WIDTH = 1\n") -> str:
    """Write a wheel; return its line in a lock file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": content,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"


class World:
    """A folder of code with a lock file and wheels, and a cache."""

    def __init__(self, folder: Path) -> None:
        self.code, self.cache = folder / "src", folder / "cache"
        self.wheels = self.code / "wheels"
        self.environment = {"PATH": os.environ["PATH"], "TRAINMASTER_CACHE": str(self.cache), "HOME": str(folder)}
        self.wheels.mkdir(parents=True)
        self.cache.mkdir()

    def lock(self, *lines: str) -> None:
        (self.code / "lock.txt").write_text("".join(lines))

    def install(self, wheels: str | None = "wheels", **more: str) -> Path | None:
        code = Code.model_validate({"image": str(self.code), "requirements": "lock.txt", "wheels": wheels})
        entry = install(code, self.code, Storage(), {**self.environment, **more})
        return packages_of(entry) if entry is not None else None

    def built(self) -> list[str]:
        return sorted(path.name for path in (self.cache / "packages").iterdir() if path.is_dir())


class Index:
    """An index of packages by PEP 503: the pages of a folder. It misbehaves for requests that `fault` answers."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, list[str]()
        self.fault: Callable[[SimpleHTTPRequestHandler], bool] = lambda request: False
        self.closing = threading.Event()
        (folder / "simple").mkdir(parents=True)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self, directory=str(folder)))
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}/simple"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def add(self, name: str, version: str) -> str:
        """Serve a wheel; return its line in a lock file."""
        line = wheel(self.folder / "files", name, version)
        self.page(name)
        return line

    def page(self, name: str) -> None:
        """Write the page of a package, with the checksums of the files as they are."""
        links = [
            f'<a href="../../files/{file.name}#sha256={hashlib.sha256(file.read_bytes()).hexdigest()}">{file.name}</a>'
            for file in sorted((self.folder / "files").glob(f"{name}-*.whl"))
        ]
        page = self.folder / "simple" / name / "index.html"
        page.parent.mkdir(exist_ok=True)
        page.write_text(f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>")

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, index: Index, *given: Any, **more: Any) -> None:
        self.index = index
        super().__init__(*given, **more)

    def do_GET(self) -> None:
        self.index.asked.append(self.path)
        if not self.index.fault(self):
            super().do_GET()

    def do_HEAD(self) -> None:
        if not self.index.fault(self):
            super().do_HEAD()

    def log_message(self, *_: Any) -> None:
        """Print nothing."""
