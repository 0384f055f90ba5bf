"""Build the images and bring them to the nodes cheaply.

Three copies would be slow and fill the disk, so there is one: the layout's blobs, the golden containerd root's
blobs and every node's blobs are hard links to the same files. A node that starts gets a hard-linked copy of the
golden root; a node that runs gets an archive of only the blobs it lacks, which after a change of our own code is
the last, small layer.
"""

import hashlib
import json
import os
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from testbed import builds, paths, tarsplit
from testbed.builds import say
from testbed.errors import BedError
from testbed.node import ctr_command, unmount_below
from testbed.oci import Layout, image_name
from testbed.procs import run

BASE = "docker.io/library/python:3.11-slim-bookworm"
SCRATCH = ("pause", "coredns", "minio")
OURS = ("operator", "trainer")


def home() -> Path:
    """Everything about images; survives ``down``."""
    return paths.cache_dir() / "images"


def layout() -> Layout:
    """The layout that every image goes through."""
    return Layout(home() / "layout")


def build_scratch(names: Iterable[str] = SCRATCH) -> None:
    """The images that hold one static binary each."""
    for short in names:
        mark, name, key = home() / f"{short}.inputs", image_name(short), builds.key(builds.TOOLS[short])
        if _is_built(mark, key, name):
            continue
        with _layout_lock():
            layout().add_scratch_image(name, {f"/{short}": builds.tool(short)}, [f"/{short}"])
            mark.write_text(key)


def build_ours(names: Iterable[str] = OURS) -> list[str]:
    """Build images/NAME/Dockerfile where something that goes in has changed; returns the full names."""
    done = []
    for short in names:
        dockerfile = paths.REPO / "images" / short / "Dockerfile"
        if not dockerfile.exists():
            raise BedError(f"no {dockerfile.relative_to(paths.REPO)}; images that can be built: {', '.join(OURS)}")
        # a long build must not hold up those who only read the layout, so it has a lock of its own
        with paths.locked(home() / "build.lock"):
            key, mark, name = inputs_key(dockerfile, paths.REPO), home() / f"{short}.inputs", image_name(short)
            if not _is_built(mark, key, name):
                build(dockerfile, name)
                mark.write_text(key)
        done.append(name)
    return done


@dataclass(frozen=True)
class BuiltLayer:
    """A layer in buildah's store."""

    files: Path
    """Its files, unpacked."""
    record: Path
    """What of the layer's archive isn't in the files."""


def built_layers() -> dict[str, BuiltLayer]:
    """What buildah's store holds, by the digest of the uncompressed layer."""
    store = home() / "storage" / "root"
    index = store / "overlay-layers" / "layers.json"
    if not index.exists():
        return {}
    found = {
        layer["diff-digest"]: BuiltLayer(
            store / "overlay" / layer["id"] / "diff", index.with_name(f"{layer['id']}.tar-split.gz")
        )
        for layer in json.loads(index.read_text())
        if "diff-digest" in layer
    }
    return {digest: layer for digest, layer in found.items() if layer.files.is_dir()}


def build(dockerfile: Path, name: str, context: Path | None = None) -> None:
    """Build an image into the layout, whatever is there of it. `context`: default: this checkout."""
    began = time.monotonic()
    say(f"building {name}")
    _build_base()
    _buildah_build(dockerfile, name, context or paths.REPO)
    built = time.monotonic()
    with _layout_lock():
        _push(name)
        layout().prune()
    run(_buildah("rm", "--all"))
    run(_buildah("rmi", "--prune"))
    unmount_below(home() / "storage")
    say(f"built {name} in {built - began:.0f} s, stored it in {time.monotonic() - built:.0f} s")


def is_stored(short: str) -> bool:
    """Whether an image is built and so will be on the nodes."""
    return image_name(short) in layout().digests()


def _is_built(mark: Path, key: str, name: str) -> bool:
    return mark.exists() and mark.read_text() == key and name in layout().digests()


def _layout_lock() -> AbstractContextManager[None]:
    return paths.locked(home() / "layout.lock")


def inputs_key(dockerfile: Path, context: Path) -> str:
    """A hash of the Dockerfile and of every file that its COPY lines name."""
    digest = hashlib.sha256(dockerfile.read_bytes())
    digest.update("".join((*_BASE_PACKAGES, _BASE_DOCKERFILE)).encode())
    for source in copy_sources(dockerfile.read_text()):
        for file in sorted(_files(context, source)):
            digest.update(f"{file.relative_to(context)}\0{file.stat().st_mode & 0o111}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def copy_sources(dockerfile: str) -> list[str]:
    """What COPY and ADD take from the build context (not ``--from`` another stage)."""
    sources: list[str] = []
    for line in dockerfile.replace("\\\n", " ").splitlines():
        words = line.split()
        if not words or words[0].upper() not in ("COPY", "ADD") or any(w.startswith("--from") for w in words):
            continue
        sources += [word for word in words[1:-1] if not word.startswith("--")]
    return sources


def _files(context: Path, source: str) -> Iterable[Path]:
    for match in context.glob(source.removeprefix("./").rstrip("/") or "*"):
        found = match.rglob("*") if match.is_dir() else [match]
        yield from (file for file in found if file.is_file() and "__pycache__" not in file.parts)


def _buildah(*args: str) -> list[str]:
    storage = home() / "storage"
    return [
        "buildah",
        "--root",
        str(storage / "root"),
        "--runroot",
        str(storage / "run"),
        "--storage-driver",
        "overlay",
        *args,
    ]


# No perl (usr-is-merged instead of usrmerge), no translations, no manuals: 129 MB instead of 248.
_BASE_PACKAGES = (
    "--variant=minbase",
    "--include=usr-is-merged,python3,python3-venv,ca-certificates",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("locale", "man", "info", "doc")),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)
_BASE_DOCKERFILE = (
    "FROM scratch\nADD base.tar /\n"
    # where the image of that name has its interpreter
    'RUN ["/bin/sh", "-c", "ln -s /usr/bin/python3 /usr/local/bin/python'
    ' && ln -s /usr/bin/python3 /usr/local/bin/python3"]\n'
    'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin\nCMD ["python3"]\n'
)


def _build_base() -> None:
    """The base image, from Debian packages: there may be no registry to pull it from."""
    recipe, mark = "\n".join((*_BASE_PACKAGES, _BASE_DOCKERFILE)), home() / "base.inputs"
    exists = subprocess.run(_buildah("inspect", "--type", "image", BASE), capture_output=True).returncode == 0
    if exists and mark.exists() and mark.read_text() == recipe:
        return
    say(f"building the base image {BASE} from Debian packages (about 45 s)")
    with tempfile.TemporaryDirectory(dir=home()) as folder:
        run(["mmdebstrap", *_BASE_PACKAGES, "bookworm", f"{folder}/base.tar"])
        Path(folder, "Dockerfile").write_text(_BASE_DOCKERFILE)
        run(_buildah("bud", "--isolation", "chroot", "-t", BASE, folder))
    mark.write_text(recipe)


def _buildah_build(dockerfile: Path, name: str, context: Path) -> None:
    log = home() / f"{name.replace('/', '_')}.log"
    options = ["--isolation", "chroot", "--pull-never", "--layers", "-t", name, "-f", str(dockerfile)]
    with log.open("w") as out:
        argv = _buildah("bud", *options, *_machine_options(), str(context))
        code = subprocess.run(argv, stdout=out, stderr=subprocess.STDOUT).returncode
    if code != 0:
        tail = "\n".join(log.read_text().splitlines()[-20:])
        raise BedError(f"building {name} failed ({log}):\n{tail}")


def _machine_options() -> list[str]:
    """This machine's certificates and package cache, lent to the build; nothing of them gets into the image."""
    options = []
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    if Path(bundle).exists():
        options += ["-v", "/etc/ssl/certs:/etc/ssl/certs:ro"]
        options += ["--build-arg", f"PIP_CERT={bundle}", "--build-arg", f"SSL_CERT_FILE={bundle}"]
    cache = Path(os.environ.get("UV_CACHE_DIR") or Path.home() / ".cache" / "uv")
    cache.mkdir(parents=True, exist_ok=True)
    # not where the Dockerfile clears up after itself
    return [*options, "-v", f"{cache}:/var/cache/uv", "--build-arg", "UV_CACHE_DIR=/var/cache/uv"]


def _push(name: str) -> None:
    _store_layers()
    # not `buildah push`: to a layout it compresses whatever one asks. What the layout already has is skipped.
    storage = home() / "storage"
    source = f"containers-storage:[overlay@{storage}/root+{storage}/run]{name}"
    target = f"oci:{layout().folder}:{name}"
    run(["skopeo", "copy", "--quiet", "--dest-oci-accept-uncompressed-layers", source, target])


def _store_layers() -> None:
    """Bring the layers themselves into the layout, quicker than skopeo, which makes what can't be made like this."""
    for digest, layer in built_layers().items():
        target = layout().blob(digest)
        if target.exists():
            continue
        partial = target.with_suffix(".partial")
        with suppress(OSError, EOFError, LookupError, ValueError, zlib.error), partial.open("wb") as out:
            if tarsplit.assemble(layer.record, layer.files, out) == digest:
                partial.rename(target)
        partial.unlink(missing_ok=True)


def import_foreign(reference: str) -> list[str]:
    """Take an OCI archive (a path) or an image of buildah's store into the layout; returns the names."""
    with _layout_lock():
        if Path(reference).is_file():
            return layout().import_archive(Path(reference))
        if image_name(reference) not in layout().digests():
            _push(image_name(reference))
        return [image_name(reference)]


def share_blobs(root: Path) -> None:
    """Make the blobs of a containerd root the very files of the layout."""
    for blob in (root / "io.containerd.content.v1.content" / "blobs" / "sha256").iterdir():
        source = layout().blobs / blob.name
        if source.exists() and not source.samefile(blob):
            linked = blob.with_suffix(".link")
            linked.unlink(missing_ok=True)
            os.link(source, linked)
            linked.rename(blob)


def load_into(socket: Path, name: str) -> int:
    """Import one image into a running containerd; sends only the blobs that it lacks.

    Returns:
        The number of bytes sent.
    """
    without = blobs_in(socket) - {layout().descriptor(name)["digest"]}
    child = subprocess.Popen(
        ctr_command(socket, "images", "import", "-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        sent = layout().write_archive(name, child.stdin, without)
        child.stdin.close()
    except BrokenPipeError:
        sent = 0
    said = child.stdout.read().decode(errors="replace")
    if child.wait() != 0:
        raise BedError(f"importing {name} failed: {said[-1000:]}")
    return sent


def collect_garbage(socket: Path) -> None:
    """Drop images that lost their name, at once: an old trainer image weighs 12 GB on every node.

    What a container still uses stays until the container is gone.
    """
    rows = [line.split() for line in run(ctr_command(socket, "images", "ls")).splitlines()[1:]]
    named = {row[2] for row in rows if not row[0].startswith("sha256:")}
    stale = [row[0] for row in rows if row[0].startswith("sha256:") and row[2] not in named]
    marker = "trainmaster.dev/garbage:now"
    # removing any image "synchronously" is the way to have the collector run now
    run(ctr_command(socket, "images", "tag", "--force", next(row[0] for row in rows), marker))
    run(ctr_command(socket, "images", "rm", "--sync", *stale, marker))


def load_everywhere(nodes: Sequence[tuple[Path, Path]], names: Sequence[str]) -> None:
    """Import the images into every running node (its socket and its root), side by side."""

    def load(node: tuple[Path, Path]) -> int:
        socket, root = node
        sent = sum(load_into(socket, name) for name in names if not _is_current(socket, name))
        if sent:
            collect_garbage(socket)
            share_blobs(root)
        return sent

    missing = max((_missing_bytes(socket, name) for socket, _ in nodes for name in names), default=0)
    if missing > 1e9:
        say(f"each running node unpacks {missing / 1e9:.1f} GB, which takes minutes: `down` and `up` are faster")
    began = time.monotonic()
    with ThreadPoolExecutor(max(1, len(nodes))) as pool:
        sent = sum(pool.map(load, nodes))
    if sent:
        say(f"loaded {sent / 1e6:.1f} MB of image data in {time.monotonic() - began:.1f} s")


def blobs_in(socket: Path) -> set[str]:
    """Digests of the blobs that a containerd knows."""
    return set(run(ctr_command(socket, "content", "ls", "--quiet")).split())


def _missing_bytes(socket: Path, name: str) -> int:
    missing = set(layout().blobs_of(name)) - blobs_in(socket)
    return sum(layout().blob(digest).stat().st_size for digest in missing)


def _is_current(socket: Path, name: str) -> bool:
    wanted = layout().descriptor(name)["digest"]
    listed = run(ctr_command(socket, "images", "ls", f"name=={name}"))
    return wanted in listed
