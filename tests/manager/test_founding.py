from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bayplan.model.network import ClusterNetwork
from manager.founding import (
    NetworkChoice,
    NetworkSettingsError,
    check_choice,
    founded_with,
    learn_network,
)
from manager.main import MEND_FIRST, _arguments
from manager.store import keys, records
from manager.store.records import DamagedRecordError
from tests.fakes.store import FakeEtcd, FakeStore
from tests.manager.world import World, a_world

pytestmark = pytest.mark.virtual_time


def chosen(*arguments: str) -> NetworkChoice:
    """What the command line makes of it."""
    argv = ["--id=m1", "--advertise=10.0.0.1:7400", *arguments]
    return _arguments(argv, {}, Path("/nonexistent/manager.toml")).manager.network


class TestSettings:
    def test_say_nothing_unless_they_are_given(self) -> None:
        assert chosen() == NetworkChoice()

    def test_choose_every_part_of_the_network(self) -> None:
        choice = chosen(
            "--pod-range=10.8.0.0/16",
            "--node-prefix=26",
            "--service-range=10.9.0.0/20",
            "--cluster-domain=bay.example",
            "--network=wireguard",
            "--network-id=7",
            "--network-port=7999",
        )

        assert founded_with(choice) == ClusterNetwork(
            pod_range="10.8.0.0/16",
            node_prefix=26,
            service_range="10.9.0.0/20",
            domain="bay.example",
            mode="wireguard",
            id=7,
            port=7999,
        )

    @pytest.mark.parametrize(
        ("argument", "words"),
        [
            ("--pod-range=pods", "'pods' is no range of IPv4 addresses, such as 10.42.0.0/15"),
            ("--pod-range=fd00::/64", "is no range of IPv4 addresses"),
            ("--pod-range=10.42.0.0", "did you mean 10.42.0.0/32?"),
            ("--pod-range=10.43.0.0/15", "did you mean 10.42.0.0/15?"),
            ("--service-range=10.96.0.0/255.255.0.0", "did you mean 10.96.0.0/16?"),
            ("--service-range=127.0.0.0/16", "holds addresses that no host can have (127.0.0.0/8)"),
            ("--pod-range=0.0.0.0/0", "holds addresses that no host can have"),
            ("--pod-range=239.0.0.0/16", "holds addresses that no host can have (224.0.0.0/3)"),
            ("--node-prefix=31", "31 leaves no address for pods: at most 30"),
            ("--cluster-domain=Bay", "'Bay' is no domain"),
            ("--cluster-domain=a..b", "'a..b' is no domain"),
            (f"--cluster-domain={'a' * 58}", "at most 57 characters"),
            ("--network=ipsec", "'ipsec' is not one of vxlan, wireguard, off"),
            ("--network-id=16777216", "16777216 is too large: at most 16777215"),
            ("--network-port=65536", "65536 is no port"),
        ],
    )
    def test_that_cannot_be_end_the_program_in_words(
        self, argument: str, words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            chosen(argument)

        assert ended.value.code == MEND_FIRST
        said = capsys.readouterr().err
        assert words in said
        assert argument.partition("=")[0] in said


class TestNewCluster:
    def test_has_the_defaults(self) -> None:
        assert founded_with(NetworkChoice()) == ClusterNetwork()

    @pytest.mark.parametrize(
        ("choice", "words"),
        [
            (
                NetworkChoice(pod_range="10.96.4.0/22"),
                "10.96.4.0/22 and --service-range 10.96.0.0/16 overlap",
            ),
            (NetworkChoice(service_range="10.0.0.0/12", pod_range="10.1.0.0/16"), "overlap"),
            (NetworkChoice(node_prefix=15), "--node-prefix 15 must be longer than the 15 of --pod-range"),
            (NetworkChoice(pod_range="10.42.0.0/24"), "--node-prefix 24 must be longer than the 24"),
            (NetworkChoice(service_range="10.128.0.0/11"), "must be a /12 to a /30"),
            (NetworkChoice(service_range="10.96.0.0/31"), "must be a /12 to a /30"),
        ],
    )
    def test_is_not_founded_with_parts_that_do_not_fit(self, choice: NetworkChoice, words: str) -> None:
        with pytest.raises(NetworkSettingsError) as raised:
            founded_with(choice)

        assert words in str(raised.value)


class TestFoundedCluster:
    @pytest.mark.parametrize(
        ("choice", "words"),
        [
            (NetworkChoice(pod_range="10.8.0.0/16"), "founded with --pod-range 10.42.0.0/15"),
            (NetworkChoice(mode="off"), "founded with --network vxlan, this manager is set to off"),
            (NetworkChoice(domain="x"), "founded with --cluster-domain cluster.local"),
            (NetworkChoice(id=2), "founded with --network-id 1, this manager is set to 2"),
        ],
    )
    def test_has_no_manager_that_is_set_to_another(self, choice: NetworkChoice, words: str) -> None:
        with pytest.raises(NetworkSettingsError) as raised:
            check_choice(choice, ClusterNetwork())

        assert words in str(raised.value)

    def test_may_be_named_as_it_is(self) -> None:
        check_choice(NetworkChoice(pod_range="10.42.0.0/15", node_prefix=24, port=7472), ClusterNetwork())

    async def test_counts_and_not_the_defaults(self) -> None:
        """A range that overlaps a default is right where the cluster has another."""
        network = ClusterNetwork(pod_range="10.96.0.0/16", service_range="10.8.0.0/16")
        etcd = FakeEtcd()
        etcd.put(keys.NETWORK, records.encode_network(network))
        choice = NetworkChoice(pod_range="10.96.0.0/16")

        assert await learn_network(FakeStore(etcd, "m1"), choice, remembered=None) == network

    async def test_whose_record_is_damaged_is_not_guessed(self) -> None:
        etcd = FakeEtcd()
        etcd.put(keys.NETWORK, b"{ broken")

        with pytest.raises(DamagedRecordError):
            await learn_network(FakeStore(etcd, "m1"), NetworkChoice(), remembered=None)


def stored_network(world: World) -> ClusterNetwork | None:
    found = world.etcd.get(keys.NETWORK)
    return records.decode_network(found.value) if found is not None else None


class TestManagers:
    async def test_found_it_once(self) -> None:
        async with a_world(2, network=NetworkChoice(id=3)) as world:
            before = world.etcd.get(keys.NETWORK)
            await world.kill(world.leader)
            await world.until(
                lambda: bool(world.managers) and any(m.leadership for m in world.managers.values())
            )

            assert stored_network(world) == ClusterNetwork(id=3)
            assert world.etcd.get(keys.NETWORK) == before
            assert world.leadership.state.network == ClusterNetwork(id=3)

    async def test_write_it_into_a_store_from_before(self) -> None:
        """And mark the store, so that no manager from before leads beside them."""
        world = World()
        meta = records.Meta(format_version=2, cluster_id="c", incarnation="i")
        world.etcd.put(keys.META, records.encode_meta(meta))
        await world.start("m1")
        await world.until(lambda: stored_network(world) is not None)
        found = world.etcd.get(keys.META)
        await world.close()

        assert found is not None
        assert records.decode_meta(found.value) == records.Meta(
            format_version=records.FORMAT_VERSION, cluster_id="c", incarnation="i"
        )

    async def test_that_are_set_to_another_one_do_not_start(self) -> None:
        async with a_world() as world:
            second = world.manager("m2", network=NetworkChoice(pod_range="10.8.0.0/16"))

            with pytest.raises(NetworkSettingsError):
                await second.run()

    async def test_that_were_set_to_another_one_before_it_was_founded_do_not_lead(self) -> None:
        async with a_world() as world:
            world.etcd.delete(keys.NETWORK)
            await world.start("m2", network=NetworkChoice(id=2))
            world.etcd.put(keys.NETWORK, records.encode_network(ClusterNetwork()))
            task = world.task("m2")
            await world.kill("m1")
            async with asyncio.timeout(30):
                await asyncio.wait([task])

            error = task.exception()
            assert isinstance(error, ExceptionGroup)
            assert error.subgroup(NetworkSettingsError) is not None

    async def test_give_a_store_that_was_wiped_what_it_had(self) -> None:
        async with a_world(network=NetworkChoice(id=3)) as world:
            world.etcd.wipe()
            await world.until(lambda: stored_network(world) is not None)

            assert stored_network(world) == ClusterNetwork(id=3)
