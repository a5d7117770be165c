"""Our nftables table in the kernel: replaced in one transaction, read back, put back when somebody changed it.

nft rewrites what it is given, so what it lists is compared with what it listed just after we had put it in.
Listing costs, so it is done only when the kernel's count of changes to any table has moved.
"""

from __future__ import annotations

import json
from typing import Any

import structlog

from agent.network import command
from agent.network.kernel import Kernel
from agent.network.port import NetworkError

log = structlog.get_logger(__name__)

# What changes by itself: numbers of rules, and counts of packets.
_VOLATILE = frozenset(("handle", "packets", "bytes"))


class Firewall:
    """One table. Raises NetworkError from its methods."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._wanted = ""
        self._listed = ""  # Just after it was put in.
        self._generation: int | None = None  # Of all tables, when it was last seen to be right.

    async def have(self, table: str, text: str) -> bool:
        """The table `table` is as `text` says when this returns. Whether anything was to be done."""
        reason = await self._difference(table, text)
        if not reason:
            return False
        await command.run("nft", "-f", "-", text=text)
        # Asked for first: what somebody changes from here on is seen the next time.
        self._generation = await self._kernel.firewall_generation()
        self._listed = await _list(table)
        self._wanted = text
        log.info("firewall.replaced", table=table, reason=reason, bytes=len(text))
        return True

    async def _difference(self, table: str, text: str) -> str:
        if not self._wanted:
            return "the agent has started"
        if text != self._wanted:
            return "services or nodes have changed"
        generation = await self._kernel.firewall_generation()
        if generation is not None and generation == self._generation:
            return ""
        try:
            listed = await _list(table)
        except NetworkError as error:
            return str(error)
        if listed != self._listed:
            return "somebody changed it"
        self._generation = generation
        return ""


async def _list(table: str) -> str:
    return without_counters(await command.run("nft", "-j", "list", "table", *table.split()))


def without_counters(listing: str) -> str:
    """nft's JSON without what changes by itself. Raises NetworkError on what is none."""
    try:
        found = json.loads(listing)
    except ValueError as error:
        raise NetworkError("nft lists no JSON: is it built without?") from error
    return json.dumps(_stripped(found), sort_keys=True)


def _stripped(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _stripped(value) for key, value in found.items() if key not in _VOLATILE}
    if isinstance(found, list):
        return [_stripped(value) for value in found]
    return found
