from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.network.addresses import REST_S, AddressBook, Addresses, from_json
from agent.network.port import NetworkError

SUBNET = IPv4Network("10.42.3.0/24")
SMALL = IPv4Network("10.42.3.0/29")  # .2 to .6


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def agent(tmp_path: Path, clock: Clock) -> Callable[[], Addresses]:
    """Each call is another agent's start."""
    return lambda: Addresses(tmp_path, monotonic_s=clock)


class TestChoosing:
    async def test_a_pod_keeps_its_address(self, agent: Callable[[], Addresses]) -> None:
        addresses = agent()
        first = await addresses.choose("a", SUBNET)

        assert first == IPv4Address("10.42.3.2")
        assert await addresses.choose("b", SUBNET) == IPv4Address("10.42.3.3")
        assert await addresses.choose("a", SUBNET) == first

    async def test_it_keeps_it_over_an_agents_restart(self, agent: Callable[[], Addresses]) -> None:
        first = await agent().choose("a", SUBNET)

        second = agent()

        assert await second.choose("b", SUBNET) != first
        assert await second.choose("a", SUBNET) == first

    async def test_used_ones_are_used_again_last(self, agent: Callable[[], Addresses], clock: Clock) -> None:
        addresses = agent()
        first = await addresses.choose("a", SUBNET)
        addresses.release("a")
        clock.now_s += 2 * REST_S

        assert await addresses.choose("b", SUBNET) == first + 1

    async def test_a_used_one_rests_for_a_minute(self, agent: Callable[[], Addresses], clock: Clock) -> None:
        addresses = agent()
        given_out = [await addresses.choose(name, SMALL) for name in "abcde"]
        addresses.release("c")

        clock.now_s += REST_S - 1
        with pytest.raises(NetworkError, match=r"10\.42\.3\.0/29 is full: 4 of its 5 .* 1 rest"):
            await addresses.choose("f", SMALL)
        clock.now_s += 1
        assert await addresses.choose("f", SMALL) == given_out[2]

    async def test_it_rests_anew_after_a_restart(self, agent: Callable[[], Addresses], clock: Clock) -> None:
        """Nobody knows how long the agent was away."""
        first = agent()
        for name in "abcde":
            await first.choose(name, SMALL)
        first.release("c")
        await first.save()
        clock.now_s += REST_S - 1

        second = agent()

        clock.now_s += REST_S - 1
        with pytest.raises(NetworkError, match="full"):
            await second.choose("f", SMALL)

    async def test_another_subnet_gives_another_address(self, agent: Callable[[], Addresses]) -> None:
        addresses = agent()
        await addresses.choose("a", SUBNET)

        assert await addresses.choose("a", IPv4Network("10.42.9.0/24")) == IPv4Address("10.42.9.2")

    async def test_what_runs_is_right_whatever_was_noted(
        self, agent: Callable[[], Addresses], tmp_path: Path
    ) -> None:
        (tmp_path / "addresses.json").write_text("{damaged")
        addresses = agent()

        addresses.adopt("x", IPv4Address("10.42.3.2"))

        assert await addresses.choose("a", SUBNET) == IPv4Address("10.42.3.3")
        assert await addresses.choose("x", SUBNET) == IPv4Address("10.42.3.2")

    async def test_pods_that_nobody_knows_give_theirs_back(self, agent: Callable[[], Addresses]) -> None:
        """The agent died between a pod's end and its note."""
        addresses = agent()
        for name in "abcde":
            await addresses.choose(name, SMALL)

        addresses.retain(["a", "c"])

        assert sorted(addresses.leases) == ["a", "c"]

    async def test_a_disk_that_refuses_is_said(self, tmp_path: Path, clock: Clock) -> None:
        addresses = Addresses(tmp_path / "absent", monotonic_s=clock)

        with pytest.raises(NetworkError, match=r"cannot note the address 10\.42\.3\.2: No such file"):
            await addresses.choose("a", SUBNET)


STEPS = st.lists(
    st.tuples(st.sampled_from(["choose", "release", "wait", "restart"]), st.integers(0, 7)), max_size=60
)


class TestAlways:
    @given(STEPS)
    def test_no_address_is_given_twice_or_too_soon(self, steps: list[tuple[str, int]]) -> None:
        book, now_s = AddressBook(), 0.0
        released_s: dict[IPv4Address, float] = {}
        for step, number in steps:
            pod = f"pod{number}"
            if step == "choose":
                known = book.leases.get(pod)
                try:
                    book, address = book.choose(pod, SMALL, now_s=now_s)
                except NetworkError:
                    continue
                assert address in SMALL
                assert address not in {SMALL[0], SMALL[1], SMALL[-1]}
                assert known in {None, address}
                if known is None:
                    assert now_s - released_s.get(address, -REST_S) >= REST_S
            elif step == "release":
                if pod in book.leases:
                    released_s[book.leases[pod]] = now_s
                book = book.release(pod, now_s=now_s)
            elif step == "wait":
                now_s += 10 * number
            else:
                book = from_json(book.to_json(now_s=now_s), now_s=now_s)
            assert len(set(book.leases.values())) == len(book.leases)
