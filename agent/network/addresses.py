"""Which pod has which address of this node's subnet.

A pod keeps its address for its life, through restarts of its containers and of the agent. Addresses are
given in turn, so that one is used again as late as can be, and never within a minute: whoever still
talks to the pod that had it must find nobody there, not somebody else. What was noted last is on disk
before an address is used; after a restart all that rested rests anew, since nobody knows how long the
agent was away.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path

import structlog

from agent.network.port import NetworkError
from bayplan.identity.credentials import write_private

log = structlog.get_logger(__name__)

FILE_NAME = "addresses.json"
REST_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressBook:
    """Who has what. Mappings are replaced, never changed."""

    leases: Mapping[str, IPv4Address] = field(default_factory=dict)  # By pod uid.
    resting: Mapping[IPv4Address, float] = field(default_factory=dict)  # Until when, monotonic.
    last: IPv4Address | None = None  # That was given.

    def choose(self, pod_uid: str, subnet: IPv4Network, *, now_s: float) -> tuple[AddressBook, IPv4Address]:
        """The pod's own address, or the next that is free. Raises NetworkError when none is."""
        has = self.leases.get(pod_uid)
        if has is not None and has in subnet:
            return self, has
        resting = {address: until_s for address, until_s in self.resting.items() if until_s > now_s}
        taken = set(self.leases.values())
        # The first is the gateway's; the network's own and the broadcast address are nobody's.
        first, count = int(subnet.network_address) + 2, max(0, subnet.num_addresses - 3)
        last = self.last if self.last is not None and self.last in subnet else None
        offset = (int(last) + 1 - first) if last is not None else 0
        for step in range(count):
            address = IPv4Address(first + (offset + step) % count)
            if address not in taken and address not in resting:
                leases = {**self.leases, pod_uid: address}
                return replace(self, leases=leases, resting=resting, last=address), address
        raise NetworkError(
            f"the subnet {subnet} is full: {len(taken)} of its {count} addresses belong to pods, {len(resting)} rest"
            " for a minute after their pod's end"
        )

    def adopt(self, pod_uid: str, address: IPv4Address) -> AddressBook:
        """A pod was found at this address: it is so, whatever was noted."""
        others = {uid: each for uid, each in self.leases.items() if each != address}
        return replace(self, leases={**others, pod_uid: address})

    def release(self, pod_uid: str, *, now_s: float) -> AddressBook:
        """The pod is gone; its address rests."""
        if pod_uid not in self.leases:
            return self
        leases = dict(self.leases)
        address = leases.pop(pod_uid)
        return replace(self, leases=leases, resting={**self.resting, address: now_s + REST_S})

    def to_json(self, *, now_s: float) -> str:
        """As it is kept on disk: without times, which mean nothing to the next process."""
        resting = [str(address) for address, until_s in self.resting.items() if until_s > now_s]
        leases = {uid: str(address) for uid, address in self.leases.items()}
        return json.dumps({"pods": leases, "resting": resting, "last": str(self.last or "")})


def from_json(text: str, *, now_s: float) -> AddressBook:
    """Raises ValueError on what `to_json` has not written."""
    try:
        found = json.loads(text)
        return AddressBook(
            leases={str(uid): IPv4Address(address) for uid, address in found["pods"].items()},
            resting={IPv4Address(address): now_s + REST_S for address in found["resting"]},
            last=IPv4Address(found["last"]) if found["last"] else None,
        )
    except (KeyError, TypeError, AttributeError, AddressValueError) as error:
        raise ValueError(f"no list of addresses: {error}") from error


class Addresses:
    """The book of one node, on disk.

    Args:
        directory: where it is kept.
        monotonic_s: seconds that never go back.
    """

    def __init__(self, directory: Path, *, monotonic_s: Callable[[], float]) -> None:
        self._path = directory / FILE_NAME
        self._monotonic_s = monotonic_s
        self._book = self._load()
        self._saved: AddressBook | None = self._book
        self._saving = asyncio.Lock()

    @property
    def leases(self) -> Mapping[str, IPv4Address]:
        """By pod uid."""
        return self._book.leases

    async def choose(self, pod_uid: str, subnet: IPv4Network) -> IPv4Address:
        """On disk when it returns. Raises NetworkError."""
        before = self._book
        self._book, address = self._book.choose(pod_uid, subnet, now_s=self._monotonic_s())
        if self._book is not before:
            log.info("address.given", pod=pod_uid, address=str(address))
        try:
            await self.save()
        except OSError as error:
            # Not given back: another call may have saved it meanwhile. The pod asks again and gets the same.
            raise NetworkError(f"cannot note the address {address}: {error.strerror}") from error
        return address

    def adopt(self, pod_uid: str, address: IPv4Address) -> None:
        """A container of the pod was found running there."""
        if self._book.leases.get(pod_uid) != address:
            log.info("address.adopted", pod=pod_uid, address=str(address))
            self._book = self._book.adopt(pod_uid, address)

    def release(self, pod_uid: str) -> None:
        """To be saved by the next `save`."""
        self._book = self._book.release(pod_uid, now_s=self._monotonic_s())

    def retain(self, pod_uids: Collection[str]) -> None:
        """Release all pods but these: no others are known."""
        for pod_uid in self._book.leases.keys() - set(pod_uids):
            self.release(pod_uid)

    async def save(self) -> None:
        """Write what is not on disk yet; those who wait at once share one write. Raises OSError."""
        async with self._saving:
            book = self._book
            if book is self._saved:
                return
            text = book.to_json(now_s=self._monotonic_s())
            await asyncio.to_thread(write_private, self._path, text.encode())
            self._saved = book

    def _load(self) -> AddressBook:
        try:
            return from_json(self._path.read_text(), now_s=self._monotonic_s())
        except FileNotFoundError:
            return AddressBook()
        except (OSError, ValueError) as error:
            # Running pods' addresses are found again in their containers.
            log.warning("addresses.not_read", path=str(self._path), error=str(error))
            return AddressBook()
