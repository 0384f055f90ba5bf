"""`spec.training.code`: the user's own code, and how it reaches the pods.

On a laptop `code.path` is a folder. `trainmaster submit` packs it into one deterministic archive (`archive.py`) and
replaces `path` by what a pod can read: `inline` for a small one, `stored` for a larger one.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from trainmaster_api.address import AddressError, Uri, parse
from trainmaster_api.types import Model, rule_error

INLINE_LIMIT = 256 * 1024
"""Bytes of an archive that travels inside the job; etcd takes objects of about 1.5 MiB, base64 adds a third."""
RELATIVE_PATTERN = r"^[^/\\\x00-\x1f][^\\\x00-\x1f]*$"


def _inside(path: str) -> str:
    if ".." in path.split("/"):
        raise rule_error("must be inside the code: `..` leaves it")
    return path


def _wheels(text: str) -> str:
    """Return a folder of the code unchanged, and an address in its one spelling."""
    if "://" in text or text.startswith("/"):
        try:
            return str(parse(text))
        except AddressError as error:
            raise rule_error(str(error)) from None
    return _inside(text)


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$", max_length=64, examples=["0f3c9a1b" * 8])]
RelativePath = Annotated[
    str, Field(pattern=RELATIVE_PATTERN, max_length=1024, examples=["src", "train.py"]), AfterValidator(_inside)
]


class InlineCode(Model):
    """An archive inside the job, as `trainmaster submit` writes it."""

    sha256: Sha256
    """SHA-256 of the archive."""
    data: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9+/=]*$", max_length=INLINE_LIMIT * 4 // 3 + 4, examples=["H4sIAAAA"])
    ]
    """The archive (.tar.gz), base64. In a pod it is empty: the run's Secret has it."""


class StoredCode(Model):
    """An archive in object storage."""

    uri: Annotated[Uri, Field(examples=["s3://bucket/prefix/code/0f3c.tar.gz"])]
    """Address of the archive (.tar.gz); read with the credentials of `spec.storage`."""
    sha256: Sha256
    """SHA-256 of the archive; another content is refused."""


class GitCode(Model):
    """A commit of a git repository."""

    url: Annotated[
        str, Field(pattern=r"^(https?|ssh|file)://[^\s]+$", max_length=1024, examples=["https://git.example/me/net"])
    ]
    """Address of the repository."""
    commit: Annotated[str, Field(pattern="^([0-9a-f]{40}|[0-9a-f]{64})$", max_length=64, examples=["0f3c9a1b" * 5])]
    """Full commit hash. A branch or tag may move, so it is no identity; `trainmaster submit` resolves one."""
    folder: RelativePath | None = None
    """Folder of the repository that is the code. Default: all of it."""


class Code(Model):
    """The user's own code: where it is. References are resolved in it, and a script runs in it."""

    EXACTLY_ONE: ClassVar[tuple[str, ...]] = ("path", "inline", "stored", "git", "image")

    path: Annotated[str, Field(min_length=1, max_length=1024, examples=["./src"])] | None = None
    """Folder relative to the TrainingJob's file. For `trainmaster run` and `trainmaster submit`, which packs it;
    `kubectl apply` rejects it, because the cluster can't read your disk."""
    inline: InlineCode | None = None
    """A small archive inside the job, as `trainmaster submit` writes it: no access to storage is needed."""
    stored: StoredCode | None = None
    """An archive in object storage, as `trainmaster submit` writes it for larger code."""
    git: GitCode | None = None
    """A commit of a git repository; the image needs git, and the pods a way to the repository."""
    image: Annotated[str, Field(pattern="^/", max_length=1024, examples=["/app"])] | None = None
    """Absolute path of a folder in the container's image."""
    requirements: RelativePath | None = None
    """Lock file in the code, such as `uv pip compile --generate-hashes` writes it: every package at one version and
    with its checksums. They are installed before the ranks start, for them alone, and kept by the file's content.
    Packages that Trainmaster itself needs stay those of the image."""
    wheels: (
        Annotated[
            str,
            Field(min_length=1, max_length=1024, examples=["wheels", "s3://bucket/wheels"]),
            AfterValidator(_wheels),
        ]
        | None
    ) = None
    """Where the wheels of `requirements` are: a folder of the code, an absolute path in the pods, or object storage,
    read with the credentials of `spec.storage`. Default: the index of packages that the environment of the pods names
    (UV_DEFAULT_INDEX, UV_INDEX, PIP_INDEX_URL)."""

    @property
    def archive_sha256(self) -> str:
        """Checksum of the archive that the job names; empty for other code."""
        found = self.inline or self.stored
        return found.sha256 if found is not None else ""
