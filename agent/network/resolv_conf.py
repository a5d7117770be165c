"""The /etc/resolv.conf of pods: a file of ours per namespace, mounted for reading.

The engine would put its own name server there, which ends with the engine.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from pathlib import Path

DIRECTORY = "resolv"
# Kubernetes' own: short names are tried in the search domains first.
NDOTS = 5
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def render(namespace: str, *, gateway: IPv4Address, domain: str) -> str:
    """Pure."""
    return (
        f"nameserver {gateway}\n"
        f"search {namespace}.svc.{domain} svc.{domain} {domain}\n"
        f"options ndots:{NDOTS}\n"
    )


def have(directory: Path, namespace: str, *, gateway: IPv4Address, domain: str) -> Path:
    """The file, as it should be. Raises OSError; ValueError on a namespace that cannot be a name of a file."""
    if _LABEL.fullmatch(namespace) is None:
        raise ValueError(f'"{namespace}" is not the name of a namespace')
    path = directory / DIRECTORY / f"{namespace}.conf"
    text = render(namespace, gateway=gateway, domain=domain)
    if path.exists() and path.read_text() == text:
        return path
    path.parent.mkdir(exist_ok=True)
    # In place: pods that run have this very file mounted, not its name.
    path.write_text(text)
    path.chmod(0o644)  # Programs in pods are not always root.
    return path
