from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayplan.model.names import PodId
from bayplan.model.network import ClusterNetwork
from bayplan.model.nodes import Amounts, NodeFacts
from bayplan.model.placements import Cause, Placement, Want
from bayplan.model.services import Allocation, Cursor
from manager.store import records
from manager.store.records import Chunk, DamagedRecordError, Meta, StoredDocument

U32 = st.integers(0, 2**32 - 1)
NUMBERS = {"n1": 1, "n2": 2, "far": 2**32 - 1}
NAMES = {number: name for name, number in NUMBERS.items()}


@st.composite
def chunks(draw: st.DrawFn) -> tuple[int, Chunk]:
    index = draw(st.integers(0, 10_000))
    slots = st.integers(index * 64, index * 64 + 63)
    pods = draw(st.lists(st.tuples(slots, U32), unique=True, max_size=70).map(sorted))
    placements = tuple(
        Placement(
            pod=PodId("u1", slot, incarnation),
            node=draw(st.sampled_from(sorted(NUMBERS))),
            revision=f"{draw(U32):08x}",
            want=draw(st.sampled_from(Want)),
            cause=draw(st.sampled_from(Cause)),
        )
        for slot, incarnation in pods
    )
    return index, Chunk(next_incarnation=draw(U32), placements=placements)


def a_chunk() -> Chunk:
    placement = Placement(
        pod=PodId("u1", 65, 7), node="n2", revision="00c0ffee", want=Want.RUN, cause=Cause.NODE_DOWN
    )
    return Chunk(next_incarnation=8, placements=(placement,))


class TestChunks:
    @given(chunks())
    def test_what_is_packed_is_unpacked(self, case: tuple[int, Chunk]) -> None:
        index, chunk = case

        value = records.encode_chunk(chunk, NUMBERS)

        assert records.decode_chunk("u1", index, value, NAMES) == chunk
        assert len(value) <= 16 * (len(chunk.placements) + 1)

    @given(chunks())
    def test_the_order_of_placements_does_not_matter(self, case: tuple[int, Chunk]) -> None:
        _, chunk = case
        turned = Chunk(next_incarnation=chunk.next_incarnation, placements=tuple(reversed(chunk.placements)))

        assert records.encode_chunk(turned, NUMBERS) == records.encode_chunk(chunk, NUMBERS)

    @given(st.data())
    def test_any_changed_byte_is_noticed(self, data: st.DataObject) -> None:
        value = bytearray(records.encode_chunk(a_chunk(), NUMBERS))
        value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))

        with pytest.raises(DamagedRecordError):
            records.decode_chunk("u1", 1, bytes(value), NAMES)

    @given(st.binary(max_size=100))
    def test_junk_is_noticed(self, value: bytes) -> None:
        with pytest.raises(DamagedRecordError):
            records.decode_chunk("u1", 0, value, NAMES)

    def test_a_cut_value_is_noticed(self) -> None:
        value = records.encode_chunk(a_chunk(), NUMBERS)

        for length in range(len(value)):
            with pytest.raises(DamagedRecordError):
                records.decode_chunk("u1", 1, value[:length], NAMES)

    def test_a_node_that_does_not_exist_is_named(self) -> None:
        value = records.encode_chunk(a_chunk(), NUMBERS)

        with pytest.raises(DamagedRecordError, match="node number 2"):
            records.decode_chunk("u1", 1, value, {1: "n1"})

    def test_an_empty_chunk_remembers_the_next_incarnation(self) -> None:
        value = records.encode_chunk(Chunk(next_incarnation=41, placements=()), {})

        assert records.decode_chunk("u1", 0, value, {}).next_incarnation == 41


class TestDocuments:
    def test_what_is_stored_is_read(self) -> None:
        stored = StoredDocument(
            uid="u1",
            generation=2,
            created_ms=1,
            deleting=True,
            document={"kind": "Deployment", "n": [1, None]},
        )
        facts = NodeFacts(
            name="n1",
            number=3,
            joined_ms=4,
            capacity=Amounts(cpu_millis=4000, memory_bytes=2**40, pods=110),
            labels={"zone": "a", "ü": "\n"},
        )
        meta = Meta(format_version=1, cluster_id="c", incarnation="i")
        network = ClusterNetwork(pod_range="10.8.0.0/16", mode="off", id=7)
        allocation = Allocation(
            owner="Service shop/web",
            vip="10.96.0.2",
            node_ports={"80/TCP": 30080},
            published=("80/TCP",),
            problem="ü",
        )
        cursor = Cursor(vip="10.96.0.2", node_port=30080)

        assert records.decode_network(records.encode_network(network)) == network
        assert records.decode_allocation(records.encode_allocation(allocation)) == allocation
        assert records.decode_cursor(records.encode_cursor(cursor)) == cursor
        assert records.decode_document(records.encode_document(stored)) == stored
        assert records.decode_node(records.encode_node(facts)) == facts
        assert records.decode_meta(records.encode_meta(meta)) == meta
        assert records.decode_json(records.encode_json({"b": 1, "a": []})) == {"a": [], "b": 1}

    def test_fields_of_a_newer_manager_are_passed_over(self) -> None:
        value = b'{"format_version": 1, "cluster_id": "c", "incarnation": "i", "new": 1}'

        assert records.decode_meta(value).cluster_id == "c"

    @pytest.mark.parametrize(
        "value", [b"", b"\xff", b"null", b"[]", b"{}", b'{"format_version": "one"}', b"[" * 100_000]
    )
    def test_damage_is_named(self, value: bytes) -> None:
        for decode in (records.decode_meta, records.decode_document, records.decode_node):
            with pytest.raises(DamagedRecordError):
                decode(value)

    @pytest.mark.parametrize(
        "value",
        [b"", b"\xff", b"null", b"[]", b'{"mode": "ipsec"}', b'{"node_prefix": "24"}', b"[" * 100_000],
    )
    def test_damage_of_the_network_is_named(self, value: bytes) -> None:
        with pytest.raises(DamagedRecordError):
            records.decode_network(value)

    @pytest.mark.parametrize("value", [b"", b"\xff", b"null", b"[]", b"[" * 100_000])
    def test_json_that_is_no_object_is_named(self, value: bytes) -> None:
        with pytest.raises(DamagedRecordError):
            records.decode_json(value)

    def test_the_field_at_fault_is_named(self) -> None:
        value = b'{"uid": "u", "generation": "x", "created_ms": 1, "deleting": false, "document": {}}'

        with pytest.raises(DamagedRecordError, match="generation"):
            records.decode_document(value)
