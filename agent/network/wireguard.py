"""The node's WireGuard key: made once, never sent anywhere, readable by its owner alone."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bayplan.identity.credentials import write_private

FILE_NAME = "wireguard.key"


@dataclass(frozen=True, slots=True, kw_only=True)
class WireguardKey:
    """Both in base64, as WireGuard writes them. Empty: there is none."""

    private: str = field(default="", repr=False)
    public: str = ""


def load_or_make(directory: Path) -> WireguardKey:
    """The key that was made before, or a new one. Raises OSError; one that is damaged is replaced."""
    path = directory / FILE_NAME
    try:
        key = X25519PrivateKey.from_private_bytes(base64.b64decode(path.read_text(), validate=True))
    except (FileNotFoundError, ValueError, binascii.Error):
        key = X25519PrivateKey.generate()
        write_private(path, base64.b64encode(key.private_bytes_raw()))
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return WireguardKey(
        private=base64.b64encode(key.private_bytes_raw()).decode(), public=base64.b64encode(public).decode()
    )
