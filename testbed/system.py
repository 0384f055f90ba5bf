"""What the full bed needs from the machine: Linux, root, Debian packages, and facts about its kernel."""

import os
import platform
import shutil
from pathlib import Path

from testbed.builds import say
from testbed.errors import BedError
from testbed.procs import run

# command that proves the package is there -> Debian package
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "buildah": "buildah",
    "skopeo": "skopeo",
    "mmdebstrap": "mmdebstrap",
    "iptables": "iptables",
    "ip": "iproute2",
    "conntrack": "conntrack",
    "nsenter": "util-linux",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
CNI_BIN = Path("/usr/lib/cni")
_CAP_SYS_RESOURCE = 24


def is_linux_root() -> bool:
    """Whether nodes could run here."""
    return platform.system() == "Linux" and os.geteuid() == 0


def require_root() -> None:
    """Check that nodes can run here.

    Raises:
        BedError: what is missing and what can be done without it.
    """
    if platform.system() != "Linux":
        raise BedError(
            f"nodes are network namespaces with containerd, which {platform.system()} doesn't have."
            " Use `make cluster-up PROVIDER=kind` (needs Docker)."
        )
    if os.geteuid() != 0:
        raise BedError(
            "nodes need root (network namespaces, mounts, cgroups). Run it as root, or use PROVIDER=kind."
            " The control-plane tests (make test-fast) need no root."
        )


def ensure_packages() -> None:
    """Install the missing Debian packages.

    Raises:
        BedError: something is missing and this isn't a Debian-like machine.
    """
    missing = sorted({package for command, package in PACKAGES.items() if not _has(command)})
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise BedError(f"install these first (no apt-get here to do it): {', '.join(missing)}")
    say(f"installing {', '.join(missing)}")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], env=env)
    run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing], env=env)


def _has(command: str) -> bool:
    return Path(command).exists() if command.startswith("/") else shutil.which(command) is not None


def has_sys_resource() -> bool:
    """Whether we may lower oom scores; without it runc fails unless containerd is told to leave them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return False
