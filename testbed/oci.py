"""Images as an OCI layout on disk (uncompressed layers), and archives that hold only the blobs a node lacks.

The layers are uncompressed on purpose: then a layer's digest doesn't depend on who packed it, pushing the same
image again writes nothing, and containerd's blobs are the same files (hard links).
"""

import hashlib
import io
import json
import platform
import shutil
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from testbed.errors import BedError

REPOSITORY = "docker.io/trainmaster"
TAG = "dev"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_REF = "org.opencontainers.image.ref.name"
_CHUNK = 1 << 20
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

Json = dict[str, Any]


def image_name(short: str) -> str:
    """``trainer`` -> the full name; a name with a slash or a colon is taken as it is."""
    return short if "/" in short or ":" in short else f"{REPOSITORY}/{short}:{TAG}"


PAUSE = image_name("pause")


class Layout:
    """An OCI image layout: blobs by digest and an index of names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = folder / "blobs" / "sha256"
        self.blobs.mkdir(parents=True, exist_ok=True)
        if not (folder / "oci-layout").exists():
            (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
            self._write_index([])

    def _index(self) -> list[Json]:
        entries: list[Json] = json.loads((self.folder / "index.json").read_text())["manifests"]
        # buildah leaves the former image in the index when a name moves on, without its name
        return [entry for entry in entries if _REF in entry.get("annotations", {})]

    def _write_index(self, entries: list[Json]) -> None:
        partial = self.folder / "index.json.partial"
        partial.write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
        partial.rename(self.folder / "index.json")

    def blob(self, digest: str) -> Path:
        """The file of a digest (``sha256:...``)."""
        return self.blobs / digest.removeprefix("sha256:")

    def digests(self) -> dict[str, str]:
        """Image name -> manifest digest."""
        return {entry["annotations"][_REF]: entry["digest"] for entry in self._index()}

    def descriptor(self, name: str) -> Json:
        """The manifest descriptor of an image.

        Raises:
            BedError: there is no such image.
        """
        for entry in self._index():
            if entry["annotations"][_REF] == name:
                return entry
        have = ", ".join(sorted(self.digests())) or "none"
        raise BedError(f"image {name} is not built (`python -m testbed images build`); built: {have}")

    def blobs_of(self, name: str) -> list[str]:
        """Digests of the image's manifest, configuration and layers."""
        top = self.descriptor(name)["digest"]
        manifest = json.loads(self.blob(top).read_text())
        return [top, manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]

    def layers_of(self, name: str) -> list[str]:
        """Digests of the image's layers, lowest first."""
        return self.blobs_of(name)[2:]

    def add_scratch_image(self, name: str, files: Mapping[str, Path], entrypoint: Sequence[str]) -> None:
        """An image of nothing but some executables, made without any image tool."""
        layer = self._put_layer(files)
        config = {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, **self._put(json.dumps(config).encode())},
            "layers": [{"mediaType": _LAYER, **layer}],
        }
        entry = {
            "mediaType": _MANIFEST,
            **self._put(json.dumps(manifest).encode()),
            "annotations": {_REF: name},
        }
        self._write_index([old for old in self._index() if old["annotations"][_REF] != name] + [entry])

    def _put(self, data: bytes) -> Json:
        digest = hashlib.sha256(data).hexdigest()
        (self.blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    def _put_layer(self, files: Mapping[str, Path]) -> Json:
        partial = self.folder / "layer.partial"
        with tarfile.open(partial, "w") as tar:
            for inside, source in sorted(files.items()):
                info = tarfile.TarInfo(inside.lstrip("/"))
                info.size, info.mode = source.stat().st_size, 0o755
                with source.open("rb") as data:
                    tar.addfile(info, data)
        with partial.open("rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
        size = partial.stat().st_size
        partial.rename(self.blobs / digest)
        return {"digest": f"sha256:{digest}", "size": size}

    def prune(self) -> None:
        """Remove the blobs that no named image uses any more."""
        self._write_index(self._index())
        used = {digest.removeprefix("sha256:") for name in self.digests() for digest in self.blobs_of(name)}
        for blob in self.blobs.iterdir():
            if blob.name not in used:
                blob.unlink()

    def write_archive(self, name: str, out: IO[bytes], without: Collection[str] = ()) -> int:
        """Write an OCI archive of one image to a stream, leaving out the blobs in `without`.

        Returns:
            The number of blob bytes written.
        """
        descriptor = self.descriptor(name)
        descriptor["annotations"] = {"io.containerd.image.name": name, _REF: name.rpartition(":")[2]}
        index = json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode()
        written = 0
        with tarfile.open(fileobj=out, mode="w|", bufsize=_CHUNK) as tar:
            _add_bytes(tar, "oci-layout", (self.folder / "oci-layout").read_bytes())
            _add_bytes(tar, "index.json", index)
            for digest in dict.fromkeys(self.blobs_of(name)):
                if digest not in without:
                    source = self.blob(digest)
                    tar.add(source, f"blobs/sha256/{source.name}")
                    written += source.stat().st_size
        return written

    def import_archive(self, archive: Path) -> list[str]:
        """Take the images of an OCI archive into this layout; returns their names."""
        with tarfile.open(archive) as tar:
            entries = json.loads(_read(tar, "index.json"))["manifests"]
            for member in tar:
                if member.isfile() and member.name.startswith("blobs/sha256/"):
                    target = self.blobs / Path(member.name).name
                    source = tar.extractfile(member)
                    assert source is not None
                    with target.with_suffix(".partial").open("wb") as out:
                        shutil.copyfileobj(source, out, _CHUNK)
                    target.with_suffix(".partial").rename(target)
        names = []
        for entry in entries:
            notes = entry.get("annotations", {})
            name = notes.get("io.containerd.image.name") or notes.get(_REF)
            if not name:
                raise BedError(f"{archive}: an image in it has no name (annotation {_REF})")
            entry["annotations"] = {_REF: name}
            names.append(name)
        self._write_index([old for old in self._index() if old["annotations"][_REF] not in names] + entries)
        return names


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    for member in _members(tar, name):
        source = tar.extractfile(member)
        assert source is not None
        return source.read()
    raise BedError(f"{tar.name!r}: not an OCI archive (no {name})")


def _members(tar: tarfile.TarFile, name: str) -> Iterator[tarfile.TarInfo]:
    return (member for member in tar if member.name.removeprefix("./") == name)
