"""The pods' network as the operator chose it, and as the cluster was founded with it.

It is written once: subnets, addresses and names on every host follow from it, so it cannot be changed
under pods that run. A manager that is set to another one than the cluster has does not start, for its
operator believes something that is not so.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from bayplan.model.network import (
    DOMAIN_MAX,
    POD_PREFIX_MIN,
    PREFIX_MAX,
    SERVICE_PREFIX_MIN,
    UNFIT_RANGES,
    VNI_MAX,
    ClusterNetwork,
    NetworkMode,
    is_domain,
)
from bayplan.settings import Setting, Settings
from manager.store import keys, records
from manager.store.port import Store

_MODES: tuple[NetworkMode, ...] = get_args(NetworkMode)
_AS_FOUNDED = "empty: as the cluster was founded; a new one"
_NUMBER_AS_FOUNDED = "0: as the cluster was founded; a new one"
_DEFAULT = ClusterNetwork()

NETWORK_SETTINGS = (
    Setting(
        name="pod-range",
        help=f"addresses of pods ({_AS_FOUNDED} takes {_DEFAULT.pod_range})",
        form="A.B.C.D/N",
    ),
    Setting(
        name="node-prefix",
        help=f"length of each node's part of it ({_NUMBER_AS_FOUNDED} takes {_DEFAULT.node_prefix})",
        default=0,
        is_number=True,
    ),
    Setting(
        name="service-range",
        help=f"addresses of services ({_AS_FOUNDED} takes {_DEFAULT.service_range})",
        form="A.B.C.D/N",
    ),
    Setting(name="cluster-domain", help=f"end of all names in DNS ({_AS_FOUNDED} takes {_DEFAULT.domain})"),
    Setting(
        name="network",
        help=f"what joins the nodes: {', '.join(_MODES)} ({_AS_FOUNDED} takes {_DEFAULT.mode})",
    ),
    Setting(
        name="network-id",
        help="number of the pods' network, which names devices: of two clusters on one host each needs its own"
        f" ({_NUMBER_AS_FOUNDED} takes {_DEFAULT.id})",
        default=0,
        is_number=True,
    ),
    Setting(
        name="network-port",
        help=f"UDP port between nodes ({_NUMBER_AS_FOUNDED} takes {_DEFAULT.port})",
        default=0,
        is_number=True,
    ),
)


class NetworkSettingsError(Exception):
    """What this manager is set to does not fit together, or is not what the cluster was founded with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkChoice:
    """What the operator has set. Empty or 0: as the cluster was founded."""

    pod_range: str = ""
    node_prefix: int = 0
    service_range: str = ""
    domain: str = ""
    mode: str = ""
    id: int = 0
    port: int = 0


# Field of both, and the setting that it is called by.
_NAMES = {
    "pod_range": "pod-range",
    "node_prefix": "node-prefix",
    "service_range": "service-range",
    "domain": "cluster-domain",
    "mode": "network",
    "id": "network-id",
    "port": "network-port",
}


def read_network_choice(given: Settings) -> NetworkChoice:
    """Raises ValueError in words for what can be wrong with one setting alone."""
    choice = NetworkChoice(
        pod_range=given.text("pod-range"),
        node_prefix=given.number("node-prefix"),
        service_range=given.text("service-range"),
        domain=given.text("cluster-domain"),
        mode=given.text("network"),
        id=given.number("network-id"),
        port=given.number("network-port"),
    )
    for name, problem in _problems(choice):
        raise ValueError(f"--{name} {problem}{given.whence(name)}")
    return choice


def _problems(choice: NetworkChoice) -> Iterator[tuple[str, str]]:
    """(setting, what is wrong)."""
    for name, text in (("pod-range", choice.pod_range), ("service-range", choice.service_range)):
        problem = _problem_with_range(text) if text else ""
        if problem:
            yield name, problem
    if choice.node_prefix > PREFIX_MAX:
        yield "node-prefix", f"{choice.node_prefix} leaves no address for pods: at most {PREFIX_MAX}"
    if choice.domain and not is_domain(choice.domain):
        words = "lower case letters, digits, '-' and '.'"
        problem = f"{choice.domain[:80]!r} is no domain: {words}, at most {DOMAIN_MAX} characters"
        yield "cluster-domain", problem
    if choice.mode and choice.mode not in _MODES:
        yield "network", f"{choice.mode[:80]!r} is not one of {', '.join(_MODES)}"
    if choice.id > VNI_MAX:
        yield "network-id", f"{choice.id} is too large: at most {VNI_MAX}"
    if choice.port > 65535:
        yield "network-port", f"{choice.port} is no port: at most 65535"


def _problem_with_range(text: str) -> str:
    try:
        found = ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        return f"{text[:80]!r} is no range of IPv4 addresses, such as {_DEFAULT.pod_range}"
    if str(found) != text:
        return f"{text!r} is not how a range is written: did you mean {found}?"
    unfit = next((each for each in UNFIT_RANGES if found.overlaps(each)), None)
    return f"{text} holds addresses that no host can have ({unfit})" if unfit is not None else ""


def founded_with(choice: NetworkChoice) -> ClusterNetwork:
    """A new cluster's network. Raises NetworkSettingsError when its parts do not fit each other."""
    network = ClusterNetwork(
        pod_range=choice.pod_range or _DEFAULT.pod_range,
        node_prefix=choice.node_prefix or _DEFAULT.node_prefix,
        service_range=choice.service_range or _DEFAULT.service_range,
        domain=choice.domain or _DEFAULT.domain,
        mode=next((mode for mode in _MODES if mode == choice.mode), _DEFAULT.mode),
        id=choice.id or _DEFAULT.id,
        port=choice.port or _DEFAULT.port,
    )
    pods, services = (ipaddress.IPv4Network(each) for each in (network.pod_range, network.service_range))
    if pods.overlaps(services):
        raise NetworkSettingsError(
            f"--pod-range {pods} and --service-range {services} overlap: choose others"
        )
    if pods.prefixlen < POD_PREFIX_MIN:
        raise NetworkSettingsError(f"--pod-range {pods} is too large: at most a /{POD_PREFIX_MIN}")
    if network.node_prefix <= pods.prefixlen:
        raise NetworkSettingsError(
            f"--node-prefix {network.node_prefix} must be longer than the {pods.prefixlen} of --pod-range"
            f" {pods}: each node gets a part of it"
        )
    if not SERVICE_PREFIX_MIN <= services.prefixlen <= PREFIX_MAX:
        raise NetworkSettingsError(
            f"--service-range {services} must be a /{SERVICE_PREFIX_MIN} to a /{PREFIX_MAX}"
        )
    return network


def check_choice(choice: NetworkChoice, network: ClusterNetwork) -> None:
    """Raise NetworkSettingsError when the operator has set something else than the cluster has."""
    for field, name in _NAMES.items():
        chosen, has = getattr(choice, field), getattr(network, field)
        if chosen and chosen != has:
            raise NetworkSettingsError(
                f"the cluster was founded with --{name} {has}, this manager is set to {chosen}:"
                " leave that setting out; another one needs a new cluster"
            )


async def learn_network(
    store: Store, choice: NetworkChoice, *, remembered: ClusterNetwork | None
) -> ClusterNetwork:
    """The cluster's network; before there is one, what this manager founds it with when it leads.

    A store that was wiped gets back what this manager `remembered`: agents' pods have addresses of it.
    Raises NetworkSettingsError, DamagedRecordError, StoreError.
    """
    found = await store.get(keys.NETWORK)
    network = records.decode_network(found.value) if found is not None else remembered
    network = network or founded_with(choice)
    check_choice(choice, network)
    return network
