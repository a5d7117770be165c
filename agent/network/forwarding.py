"""Ways through the rules of others: Docker's, and a host firewall that drops what it was not told of.

An accept in our own table does not help where a later table drops. So where iptables is used, which is
where Docker is, a few accepts of ours stand before everybody else's in the chains that matter, marked by a
comment. Docker puts its own in front now and then; ours are moved back. `DOCKER-USER` is the chain Docker
keeps for this; before Docker has made it, FORWARD itself serves. Docker 28 also drops, before any routing, what is
addressed to a container and does not come through its bridge: the tunnel's packets are accepted there.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from agent.network import command
from agent.network.links import Wanted
from agent.network.port import NetworkError
from agent.traffic import ports
from bayplan.v1 import agent_link_pb2 as pb

log = structlog.get_logger(__name__)

IPTABLES = "iptables"
DNS_PORT = 53
COMMENT = "bayplan"
_DOCKERS_CHAIN = "DOCKER-USER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """An accept of ours."""

    table: str
    chain: str
    match: tuple[str, ...]

    def words(self, comment: str) -> tuple[str, ...]:
        """As iptables takes it."""
        return (*self.match, "-m", "comment", "--comment", comment, "-j", "ACCEPT")


def wanted_rules(wanted: Wanted, *, proxy_port: int, forward_chain: str) -> list[Rule]:
    """Which packets must pass. Pure."""
    bridge, tunnel = wanted.bridge, wanted.tunnel
    is_routed = wanted.mode == pb.NETWORK_MODE_OFF
    from_nodes = ("-s", str(wanted.pod_range)) if is_routed else ("-i", tunnel)
    to_nodes = ("-d", str(wanted.pod_range)) if is_routed else ("-o", tunnel)
    known = ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED,DNAT")
    forward = [
        ("-i", bridge, "-o", bridge),  # Bridged packets too are shown to iptables where br_netfilter is on.
        ("-i", bridge, *to_nodes),
        (*from_nodes, "-o", bridge),
        # Into pods and over to other nodes by a published UDP port, and the answers.
        ("-o", bridge, *known),
        (*to_nodes, *known),
        (*from_nodes, *known),
        ("-i", bridge, *known),
    ]
    # Names and services are answered by this host itself, on the gateway's address alone.
    gateway = ("-d", f"{wanted.gateway.ip}/32")
    first, last = proxy_port + ports.TCP, proxy_port + ports.ECHO
    tcp = ("-p", "tcp", "-m", "multiport", "--dports", f"{DNS_PORT},{first}:{last}")
    udp = ("-p", "udp", "-m", "multiport", "--dports", f"{DNS_PORT},{last}")
    inward = [(*gateway, *source, *what) for source in (("-i", bridge), from_nodes) for what in (tcp, udp)]
    raw = [(*from_nodes, "-d", str(wanted.gateway.network))]
    return [
        *(Rule(table="filter", chain=forward_chain, match=match) for match in forward),
        *(Rule(table="filter", chain="INPUT", match=match) for match in inward),
        *(Rule(table="raw", chain="PREROUTING", match=match) for match in raw),
    ]


def are_in_front(listed: Iterable[str], rules: Iterable[Rule], comment: str) -> bool:
    """Whether our rules stand before everybody else's. Pure.

    Args:
        listed: the chain as `iptables -S` shows it.
        rules: what should be in it.
        comment: ours. Another network of ours on this host may stand in front as well.
    """
    ours = 0
    for line in listed:
        if not line.startswith("-A "):
            continue
        found = _comment(line)
        if found == comment:
            ours += 1
        elif not found.startswith(f"{COMMENT} "):
            break
    return ours == len(list(rules))


def _comment(line: str) -> str:
    match = re.search(r'--comment ("[^"]*"|\S+)', line)
    return shlex.split(match[1])[0] if match else ""


async def let_through(wanted: Wanted, *, proxy_port: int) -> list[str]:
    """Have our accepts in front; returns the chains that were changed. Raises NetworkError."""
    if shutil.which(IPTABLES) is None:
        # Then Docker uses none either; what others drop with nft alone cannot be passed from here.
        return []
    comment = f"{COMMENT} {wanted.bridge}"
    filters = await _list("filter")
    chain = _DOCKERS_CHAIN if f"-N {_DOCKERS_CHAIN}" in filters else "FORWARD"
    listed = {"filter": filters, "raw": await _list("raw")}
    rules = [
        rule
        for rule in wanted_rules(wanted, proxy_port=proxy_port, forward_chain=chain)
        if listed[rule.table]
    ]
    changed = []
    for table, chain_name in dict.fromkeys((rule.table, rule.chain) for rule in rules):
        here = [rule for rule in rules if (rule.table, rule.chain) == (table, chain_name)]
        lines = [line for line in listed[table] if line.split(" ", 2)[1] == chain_name]
        if not are_in_front(lines, here, comment):
            await _put_in_front(table, chain_name, lines, here, comment)
            changed.append(f"{table} {chain_name}")
            log.info("forwarding.let_through", table=table, chain=chain_name, bridge=wanted.bridge)
    return changed


async def _list(table: str) -> list[str]:
    code, listed, errors = await command.attempt(IPTABLES, "-w", "-t", table, "-S")
    if code and table == "filter":
        raise NetworkError(f"{IPTABLES} failed: {' '.join(errors.split())}")
    # A kernel without the raw table has nobody's rules in it.
    return listed.splitlines() if not code else []


async def _put_in_front(
    table: str, chain: str, lines: Iterable[str], rules: list[Rule], comment: str
) -> None:
    """New ones first, then the old ones go: at no moment is there none."""
    old = [line for line in lines if _comment(line) == comment]
    for rule in reversed(rules):
        await command.run(IPTABLES, "-w", "-t", table, "-I", chain, "1", *rule.words(comment))
    # Deleting by text takes the first that fits, which is a new one: so by number, from behind.
    if not old:
        return
    now = [line for line in await _list(table) if line.startswith(f"-A {chain} ")]
    numbers = [number for number, line in enumerate(now, start=1) if _comment(line) == comment]
    for number in reversed(numbers[len(rules) :]):
        await command.run(IPTABLES, "-w", "-t", table, "-D", chain, str(number))
