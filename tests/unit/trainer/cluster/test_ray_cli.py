"""Ray's command line in a process of ours: what is left out, and that a worker's waits for the head."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

from trainmaster_trainer.cluster.ray_cli import wait_for

MAIN = (
    "import sys\nfrom trainmaster_trainer.cluster.ray_cli import main\n"
    "try:\n    main(sys.argv[1:])\n"
    "finally:\n    print(*[name for name, module in sys.modules.items() if module is not None])\n"
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", MAIN, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def test_the_command_line_is_ray_s_without_what_makes_it_slow() -> None:
    done = run("--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ray, version ")
    assert not {"ray.serve", "fastapi", "pandas"} & set(done.stdout.split())


def test_a_wrong_option_is_still_ray_s_to_refuse() -> None:
    done = run("start", "--no-such-option")
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr


def test_a_worker_waits_for_its_head() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(wait_for(f"localhost:{port}")))
        thread.start()
        time.sleep(0.3)  # nothing can be awaited where nothing is to happen
        assert not found, "a head that doesn't listen isn't there"
        listener.listen()
        thread.join(20)
    assert found == [f"127.0.0.1:{port}"]


def test_a_worker_loads_while_it_waits() -> None:
    """With `--join` the address is Ray's argument in the end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = run("--join", f"localhost:{port}", "start", "--no-such-option")
        assert done.returncode == 2
        listener.settimeout(5)
        listener.accept()[0].close()  # it asked whether the head listens
