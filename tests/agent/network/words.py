"""Builders of what the leader says of a network and its services; they name what matters to the test alone."""

from __future__ import annotations

from typing import Any

from agent.network.table import NetworkTable
from agent.traffic.table import TrafficTable, key_of
from bayplan.v1 import agent_link_pb2 as pb

VIP = "10.96.0.10"
SETTINGS = pb.NetworkSettings(
    pod_range="10.42.0.0/15",
    service_range="10.96.0.0/16",
    domain="cluster.local",
    mode=pb.NETWORK_MODE_VXLAN,
    id=1,
    port=7472,
)


def settings(**changes: Any) -> pb.NetworkSettings:
    changed = pb.NetworkSettings()
    changed.CopyFrom(SETTINGS)
    changed.MergeFrom(pb.NetworkSettings(**changes))
    return changed


def told(
    number: int, *peers: int, settings: pb.NetworkSettings = SETTINGS, pods: str = "10.42"
) -> pb.Network:
    """What node `number` hears: its subnet is 10.42.<number>.0/24, its address 192.0.2.<number>."""
    return pb.Network(
        full=True,
        settings=settings,
        subnet=f"{pods}.{number}.0/24",
        peers=[
            pb.NetworkPeer(node=f"n{peer}", address=f"192.0.2.{peer}", subnet=f"{pods}.{peer}.0/24")
            for peer in peers
        ],
    )


def table(number: int, *peers: int, settings: pb.NetworkSettings = SETTINGS) -> NetworkTable:
    return NetworkTable().fold(told(number, *peers, settings=settings))


def service(*ports: pb.ServicePort, name: str = "web", vip: str = VIP, **fields: Any) -> pb.Service:
    return pb.Service(namespace="shop", name=name, vip=vip, ports=ports, **fields)


def endpoint(address: str, *ports: int, node: str = "n1", ready: bool = True) -> pb.Endpoint:
    return pb.Endpoint(id=address, node=node, address=address, ports=ports, ready=ready, weight=1)


def traffic(*services: tuple[pb.Service, list[pb.Endpoint]]) -> pb.Traffic:
    return pb.Traffic(
        full=True,
        version=1,
        services=[each for each, _ in services],
        endpoints=[
            pb.EndpointChanges(service=key_of(each), full=True, put=endpoints) for each, endpoints in services
        ],
    )


def traffic_table(*services: tuple[pb.Service, list[pb.Endpoint]]) -> TrafficTable:
    return TrafficTable().fold(traffic(*services))
