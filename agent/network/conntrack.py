"""Forgets the UDP flows that lead to pods which answer no more.

A UDP client keeps its flow for as long as it sends, and the kernel sends a known flow where it went before,
whatever the firewall says by now. pyroute2 does it: the kernel filters what it lists (since 5.8; before,
the whole table comes and is filtered here), and entries are removed one by one, so that no other flow is touched.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import structlog
from pyroute2.conntrack import AsyncConntrack, ConntrackEntry, NFCTAttrTuple
from pyroute2.netlink.exceptions import NetlinkError

from agent.network.firewall import Frontend
from agent.network.kernel import translated

log = structlog.get_logger(__name__)

# Each listing walks the kernel's whole table: above so many fronts one of all UDP flows is cheaper.
_LISTINGS_MAX = 8


async def forget_udp(answering: Mapping[Frontend, AbstractSet[Frontend]]) -> int:
    """Forget flows that were sent to one of these fronts and lead to none of the pods that answer there. Returns how many.

    Raises NetworkError.
    """
    if not answering:
        return 0
    filters = [NFCTAttrTuple(proto=socket.IPPROTO_UDP, daddr=str(at[0]), dport=at[1]) for at in answering]
    if len(filters) > _LISTINGS_MAX:
        filters = [NFCTAttrTuple(proto=socket.IPPROTO_UDP)]
    forgotten = 0
    with translated("forget UDP flows"):
        async with AsyncConntrack() as conntrack:
            for each in filters:
                entries = [entry async for entry in await conntrack.dump_entries(tuple_orig=each)]
                for entry in entries:
                    if _leads_astray(entry, answering):
                        forgotten += await _delete(conntrack, entry)
    if forgotten:
        log.info("udp_flows.forgotten", count=forgotten)
    return forgotten


def _leads_astray(entry: ConntrackEntry, answering: Mapping[Frontend, AbstractSet[Frontend]]) -> bool:
    sent_to, led_to = entry.tuple_orig, entry.tuple_reply
    for (address, port), pods in answering.items():
        if (sent_to.daddr, sent_to.dport) == (str(address), port):
            return (led_to.saddr, led_to.sport) not in {(str(pod), number) for pod, number in pods}
    return False


async def _delete(conntrack: AsyncConntrack, entry: ConntrackEntry) -> int:
    try:
        await conntrack.delete(entry)
    except NetlinkError as error:
        if error.code != errno.ENOENT:  # Gone by itself.
            raise
        return 0
    return 1
