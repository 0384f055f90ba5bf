"""The golden containerd root: every image unpacked once; nodes start from a hard-linked copy.

Nothing is written twice that is there already: the blobs are the layout's files, and the layers that buildah built are
hard links to the files in its store, where importing the trainer's 6.2 GB costs a core four minutes.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from testbed import images, paths
from testbed.builds import say
from testbed.errors import BedError
from testbed.node import ctr_command
from testbed.oci import image_name
from testbed.procs import Processes, run

_ROOT_LABEL = "containerd.io/gc.root"  # what `ctr` gives to whatever nothing refers to yet, so that it stays


def unpack(everything: bool = True) -> list[str]:
    """Build the small images and bring the golden root up to date with all that are built.

    Args:
        everything: not only `pause`.

    Returns:
        The full names of what nodes will hold.
    """
    scratch = images.SCRATCH if everything else ("pause",)
    images.build_scratch(scratch)
    ours = [short for short in images.OURS if everything and images.is_stored(short)]
    names = [image_name(short) for short in (*scratch, *ours)]
    update(names)
    return names


def folder() -> Path:
    """The containerd root."""
    return images.home() / "golden"


def update(names: Sequence[str]) -> None:
    """Bring the golden root up to date; costs nothing when it is."""
    with paths.locked(images.home() / "golden.lock"):
        mark = images.home() / "golden.json"
        want = {name: images.layout().descriptor(name)["digest"] for name in names}
        have = dict(re.findall(r"^(\S+) (\S+)$", mark.read_text(), re.MULTILINE)) if mark.exists() else {}
        if all(have.get(name) == digest for name, digest in want.items()):
            return
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as state:
            _fill(Path(state), [name for name in names if have.get(name) != want[name]])
        mark.write_text("".join(f"{name} {digest}\n" for name, digest in (have | want).items()))
        say(f"golden image root is up to date after {time.monotonic() - began:.0f} s")


def clone(target: Path) -> None:
    """Give a node that never ran a containerd root with all images: links for data, copies for databases."""
    with paths.locked(images.home() / "golden.lock"):
        if target.exists() or not folder().exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        run(["cp", "-al", str(folder()), str(target)])
        for database in folder().rglob("*.db"):
            copy = target / database.relative_to(folder())
            copy.unlink()
            shutil.copy2(database, copy)


def _fill(state: Path, names: Iterable[str]) -> None:
    socket, config = state / "containerd.sock", state / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{folder()}"\nstate = "{state}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{socket}"\n[plugins."io.containerd.internal.v1.opt"]\npath = "{state}/opt"\n'
        # garbage is collected when we say so: until its image is there, nothing refers to a blob that was lent
        '[plugins."io.containerd.gc.v1.scheduler"]\nstartup_delay = "24h"\n'
    )
    processes = Processes(state, die_with_parent=True)
    processes.start("containerd", ["containerd", "--config", str(config), "--log-level", "warn"])
    try:
        processes.wait_ready("containerd", socket.exists, 30)
        for name in names:
            lend_layers(socket, name)
            lend_blobs(socket, name)
            images.load_into(socket, name)
            _forget(socket, name)
        images.collect_garbage(socket)
    finally:
        processes.stop("containerd")


def lend_blobs(socket: Path, name: str) -> None:
    """Make the image's blobs known to containerd as the very files of the layout."""
    store = folder() / "io.containerd.content.v1.content" / "blobs" / "sha256"
    store.mkdir(parents=True, exist_ok=True)
    known = images.blobs_in(socket)
    for digest in images.layout().blobs_of(name):
        source = images.layout().blob(digest)
        if digest in known:
            continue
        if not (store / source.name).exists():
            os.link(source, store / source.name)
        expected = ["--expected-digest", digest, "--expected-size", str(source.stat().st_size)]
        # a blob that lies there already isn't written again, only recorded
        with source.open("rb") as data:
            done = subprocess.run(
                ctr_command(socket, "content", "ingest", *expected, digest), stdin=data, capture_output=True, text=True
            )
        if done.returncode != 0:
            raise BedError(f"recording {digest} of {name} failed: {done.stderr[-1000:]}")


def lend_layers(socket: Path, name: str) -> None:
    """Make snapshots of those layers that buildah's store holds unpacked; containerd unpacks what follows them."""
    built = images.built_layers()
    parent = ""
    for layer, chain in chains(images.layout().layers_of(name)):
        if layer not in built:
            break
        if subprocess.run(ctr_command(socket, "snapshots", "info", chain), capture_output=True).returncode != 0:
            _lend_layer(socket, built[layer].files, chain, parent)
        parent = chain


def _forget(socket: Path, name: str) -> None:
    """Let the image's layers go when it goes: it refers to them now, so the label that kept them isn't needed."""
    for _, chain in chains(images.layout().layers_of(name)):
        run(ctr_command(socket, "snapshots", "label", chain, f"{_ROOT_LABEL}="))


def _lend_layer(socket: Path, files: Path, chain: str, parent: str) -> None:
    active = f"lent-{chain}"
    # left by one who was killed here
    subprocess.run(ctr_command(socket, "snapshots", "rm", active), capture_output=True)
    mounts = json.loads(run(ctr_command(socket, "snapshots", "prepare", "--mounts", active, *filter(None, [parent]))))
    upper = _upper(mounts[0])
    mode = upper.stat().st_mode  # buildah's own folder isn't writable, which is no part of the layer
    run(["cp", "-al", f"{files}/.", str(upper)])
    upper.chmod(mode)
    run(ctr_command(socket, "snapshots", "commit", chain, active))


def chains(layers: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Each layer's digest and the name of its snapshot, which by the OCI image specification hashes all below it."""
    chain = ""
    for layer in layers:
        chain = f"sha256:{hashlib.sha256(f'{chain} {layer}'.encode()).hexdigest()}" if chain else layer
        yield layer, chain


def _upper(mount: dict[str, object]) -> Path:
    """Where an active snapshot's own files go."""
    if mount["Type"] == "bind":
        return Path(str(mount["Source"]))
    options = mount["Options"]
    assert isinstance(options, list)
    return next(Path(option.removeprefix("upperdir=")) for option in options if option.startswith("upperdir="))
