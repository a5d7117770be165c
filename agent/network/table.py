"""What the leader says of the pods' network, folded together. Pure but for `load` and `save`.

Kept on disk beside the journal: a host that reboots with no manager in reach connects its pods all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from bayplan.identity.credentials import write_private
from bayplan.v1 import agent_link_pb2 as pb

FILE_NAME = "network.pb"
_NO_SUBNET = IPv4Network("0.0.0.0/32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A node that cannot be as it is told. Kept: with another's going it may become possible."""

    peer: pb.NetworkPeer
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkTable:
    """`settings` is None until a leader has spoken. What was folded is checked by `credible.py` before it is used."""

    settings: pb.NetworkSettings | None = None
    subnet: IPv4Network = _NO_SUBNET
    peers: dict[str, pb.NetworkPeer] = field(default_factory=dict)  # By node; never changed in place.
    refused: dict[str, Refused] = field(default_factory=dict)  # The same.

    @property
    def told(self) -> dict[str, pb.NetworkPeer]:
        """All other nodes; those that were taken already come first."""
        return self.peers | {name: each.peer for name, each in self.refused.items()}

    @property
    def identity(self) -> tuple[pb.NetworkSettings | None, IPv4Network]:
        """What makes it another network when it changes; peers come and go."""
        return self.settings, self.subnet

    @property
    def gateway(self) -> IPv4Address:
        """The bridge's own address: pods' router and name server, and where the proxy listens."""
        return self.subnet[1]

    @property
    def bridge(self) -> str:
        """Named by the network's id, which two clusters on one host cannot share."""
        assert self.settings is not None
        return f"bay{self.settings.id}"

    @property
    def tunnel(self) -> str:
        """The device that leads to the other nodes."""
        assert self.settings is not None
        return f"{self.bridge}-{'wg' if self.settings.mode == pb.NETWORK_MODE_WIREGUARD else 'vx'}"

    def fold(self, message: pb.Network) -> NetworkTable:
        """The table after `message`, nobody refused. Raises ValueError on an own subnet that is none."""
        if message.full:
            base = NetworkTable(settings=message.settings, subnet=IPv4Network(message.subnet))
        else:
            base = self
        peers = {name: peer for name, peer in base.told.items() if name not in message.gone}
        peers |= {peer.node: peer for peer in message.peers}
        return replace(base, peers=peers, refused={})

    def to_message(self) -> pb.Network:
        """The whole as one message."""
        return pb.Network(
            full=True, settings=self.settings, subnet=str(self.subnet), peers=self.peers.values()
        )


def load(directory: Path) -> NetworkTable:
    """As it was saved; an empty one where nothing was, or nothing readable."""
    try:
        return NetworkTable().fold(pb.Network.FromString((directory / FILE_NAME).read_bytes()))
    except (OSError, ValueError):  # DecodeError is a ValueError.
        return NetworkTable()


def save(table: NetworkTable, directory: Path) -> None:
    """Raises OSError."""
    write_private(directory / FILE_NAME, table.to_message().SerializeToString())
