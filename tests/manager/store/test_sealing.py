from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.store import keys, records, sealing
from manager.store.records import DamagedRecordError
from manager.store.sealing import (
    ClusterKey,
    ClusterKeyError,
    Keyring,
    UnsealError,
    WrongClusterKeyError,
    seal,
    unseal,
)

CLUSTER_KEY = ClusterKey(secret=bytes(range(32)))
RING = sealing.new_keyring(CLUSTER_KEY)
WEB = keys.resource("Deployment", "default", "web")
SHOP = keys.resource("Deployment", "default", "shop")


class TestValues:
    @given(st.binary(max_size=2000))
    def test_what_is_sealed_is_opened(self, value: bytes) -> None:
        assert unseal(WEB, seal(WEB, value, RING), RING) == value

    def test_nothing_of_it_can_be_read(self) -> None:
        sealed = seal(WEB, b"password: swordfish", RING)

        assert b"swordfish" not in sealed
        assert b"password" not in sealed

    def test_equal_values_look_different(self) -> None:
        assert seal(WEB, b"same", RING) != seal(WEB, b"same", RING)

    def test_a_value_moved_to_another_key_is_refused(self) -> None:
        """Who may write to etcd could else give one workload the secrets of another."""
        with pytest.raises(UnsealError, match="moved here from another key"):
            unseal(SHOP, seal(WEB, b"of web", RING), RING)

    @given(st.data())
    def test_any_changed_byte_is_refused(self, data: st.DataObject) -> None:
        value = bytearray(seal(WEB, b"replicas: 3", RING))
        value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))

        with pytest.raises(UnsealError):
            unseal(WEB, bytes(value), RING)

    def test_a_cut_value_is_refused(self) -> None:
        value = seal(WEB, b"replicas: 3", RING)

        for length in range(len(value)):
            with pytest.raises(UnsealError):
                unseal(WEB, value[:length], RING)

    @pytest.mark.parametrize("value", [b"", b"{}", b'{"uid": "u1", "document": {"kind": "Deployment"}}'])
    def test_plain_text_is_refused(self, value: bytes) -> None:
        with pytest.raises(UnsealError, match="is not encrypted"):
            unseal(WEB, value, RING)

    def test_a_data_key_of_elsewhere_is_named(self) -> None:
        other = sealing.new_keyring(CLUSTER_KEY)

        with pytest.raises(UnsealError, match=f"by data key {other.primary}, which"):
            unseal(WEB, seal(WEB, b"", other), RING)

    def test_it_cannot_be_declared_to_be_of_another_data_key(self) -> None:
        """Two data keys with one secret: the id is authenticated all the same."""
        (secret,) = RING.data_keys.values()
        ring = Keyring(
            cluster_key_id=CLUSTER_KEY.id,
            primary="0000000a",
            data_keys={"0000000a": secret, "0000000b": secret},
        )
        value = seal(WEB, b"x", ring)

        with pytest.raises(UnsealError):
            unseal(WEB, value.replace(b"\0\0\0\x0a", b"\0\0\0\x0b", 1), ring)

    @given(st.one_of(st.binary(max_size=100), st.just(b"{}"), st.just("{}".encode("utf-16"))))
    def test_what_is_marked_is_damaged_to_every_decoder(self, value: bytes) -> None:
        """Whatever follows: JSON's guess of the encoding looks at those bytes."""
        marked = sealing.DAMAGED_MARK + value

        for decode in (records.decode_document, records.decode_json, records.decode_meta):
            with pytest.raises(DamagedRecordError):
                decode(marked)
        with pytest.raises(DamagedRecordError):
            records.decode_chunk("u1", 0, marked, {})

    @given(st.binary(max_size=100))
    def test_unopened_it_is_damaged_too(self, value: bytes) -> None:
        assert seal(WEB, value, RING).startswith(sealing.DAMAGED_MARK)


class TestKeyring:
    def test_what_is_stored_is_read(self) -> None:
        ring = RING.rotated(CLUSTER_KEY)

        read = sealing.decode_keyring(sealing.encode_keyring(ring, CLUSTER_KEY), [CLUSTER_KEY])

        assert read == ring
        assert list(read.data_keys) == list(ring.data_keys), "the order is the age"

    def test_it_does_not_show_its_keys(self) -> None:
        value = sealing.encode_keyring(RING, CLUSTER_KEY)

        (secret,) = RING.data_keys.values()
        assert secret not in value
        assert secret.hex() not in repr(RING)
        assert repr(secret) not in repr(RING)

    def test_another_cluster_key_is_named(self) -> None:
        other = ClusterKey.generate()

        with pytest.raises(WrongClusterKeyError) as caught:
            sealing.decode_keyring(sealing.encode_keyring(RING, CLUSTER_KEY), [other])

        assert f"encrypted under cluster key {CLUSTER_KEY.id}, this manager has {other.id}" in str(
            caught.value
        )

    def test_any_of_the_known_cluster_keys_will_do(self) -> None:
        known = [ClusterKey.generate(), CLUSTER_KEY, ClusterKey.generate()]

        assert sealing.decode_keyring(sealing.encode_keyring(RING, CLUSTER_KEY), known) == RING

    def test_a_rotated_one_opens_what_was_sealed_before(self) -> None:
        before = seal(WEB, b"old", RING)
        ring = RING.rotated(CLUSTER_KEY)

        assert unseal(WEB, before, ring) == b"old"
        assert sealing.data_key_of(seal(WEB, b"new", ring)) == ring.primary != RING.primary
        with pytest.raises(UnsealError):
            unseal(WEB, before, ring.settled())
        assert unseal(WEB, before, ring.settled().remembering(RING.data_keys)) == b"old"

    @pytest.mark.parametrize(
        ("found", "instead"),
        [
            (b'"format":1', b'"format":9'),
            (b'"primary"', b'"primal"'),
            (b'"primary":"', b'"primary":"x'),
            (b'"primary":"', b'"primary":[],"was":"'),
            (b'"data_keys":[', b'"data_keys":[1,'),
            (b'"data_keys":[[', b'"data_keys":[[7,"AAAA"],['),
            (b'"data_keys":[[', b'"data_keys":[["abcdefgh","AAAA"],['),
            (b'"data_keys":[[', b'"data_keys":[["00000000",""],['),
            (b'"data_keys":[[', b'"data_keys":[["00000000","AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],['),
            (b"{", b"["),
        ],
    )
    def test_damage_is_named(self, found: bytes, instead: bytes) -> None:
        value = sealing.encode_keyring(RING, CLUSTER_KEY)
        assert found in value

        with pytest.raises(DamagedRecordError):
            sealing.decode_keyring(value.replace(found, instead, 1), [CLUSTER_KEY])

    def test_data_keys_cannot_change_places(self) -> None:
        ring = RING.rotated(CLUSTER_KEY)
        one, two = (key_id.encode() for key_id in ring.data_keys)
        value = sealing.encode_keyring(ring, CLUSTER_KEY)
        swapped = value.replace(one, b"?").replace(two, one).replace(b"?", two)

        with pytest.raises(DamagedRecordError, match="was changed"):
            sealing.decode_keyring(swapped, [CLUSTER_KEY])


class TestClusterKey:
    def test_its_text_gives_it_back(self) -> None:
        key = ClusterKey.generate()

        assert ClusterKey.from_text(f" {key.to_text()}\r\n") == key
        assert key.to_text().startswith("bayplan-cluster-key-1:")
        assert "\n" not in key.to_text()

    def test_each_is_another(self) -> None:
        assert ClusterKey.generate().id != ClusterKey.generate().id

    def test_it_does_not_show_itself(self) -> None:
        key = ClusterKey.generate()

        for shown in (repr(key), str(key), f"{key}"):
            assert repr(key.secret) not in shown
            assert key.to_text() not in shown
        assert len(key.id) == 16

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "begins with bayplan-cluster-key-1:"),
            ("bayplan-cluster-key-2:AAAA", "begins with bayplan-cluster-key-1:"),
            ("bayplan-cluster-key-1:", "has 32 bytes, this one 0"),
            ("bayplan-cluster-key-1:AAAA", "has 32 bytes, this one 3"),
            ("bayplan-cluster-key-1:!", "is not base64"),
            ("bayplan-cluster-key-1:ä", "is not base64"),
            (CLUSTER_KEY.to_text() + "\nmore", "is not base64"),
        ],
    )
    def test_what_is_none_is_told_in_words(self, text: str, words: str) -> None:
        with pytest.raises(ClusterKeyError, match=words) as caught:
            ClusterKey.from_text(text)

        assert "AAEC" not in str(caught.value), "a key with a small mistake is a secret too"


class TestClusterKeyFile:
    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "cluster.key"

        sealing.write_cluster_key(path, CLUSTER_KEY)

        assert sealing.read_cluster_key(path) == CLUSTER_KEY
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_text() == CLUSTER_KEY.to_text() + "\n"
        assert [each.name for each in tmp_path.iterdir()] == ["cluster.key"]

    def test_another_takes_its_place(self, tmp_path: Path) -> None:
        """Also after a crash in the middle, and over a file that others could read."""
        path = tmp_path / "cluster.key"
        for name in ("cluster.key", "cluster.key.new"):
            (tmp_path / name).write_text("half of it")
            (tmp_path / name).chmod(0o644)

        sealing.write_cluster_key(path, CLUSTER_KEY)

        assert sealing.read_cluster_key(path) == CLUSTER_KEY

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o620])
    def test_one_that_others_get_at_is_refused(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "cluster.key"
        sealing.write_cluster_key(path, CLUSTER_KEY)
        path.chmod(mode)

        with pytest.raises(ClusterKeyError) as caught:
            sealing.read_cluster_key(path)

        assert f"{path} has mode {mode:04o}" in str(caught.value)
        assert f"chmod 600 {path}" in str(caught.value)

    def test_a_missing_one_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ClusterKeyError, match=f"cannot read the cluster key in {tmp_path}/none"):
            sealing.read_cluster_key(tmp_path / "none")

    @pytest.mark.parametrize("content", [b"", b"junk", b"\xff\xfe"])
    def test_one_that_holds_no_key_is_named(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "cluster.key"
        path.write_bytes(content)
        path.chmod(0o600)

        with pytest.raises(ClusterKeyError, match=str(path)):
            sealing.read_cluster_key(path)

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "none" / "cluster.key"

        with pytest.raises(ClusterKeyError, match=f"cannot write the cluster key to {path}"):
            sealing.write_cluster_key(path, CLUSTER_KEY)


class TestClusterKeyCommand:
    async def test_it_prints_the_key(self, tmp_path: Path) -> None:
        path = tmp_path / "a key"
        sealing.write_cluster_key(path, CLUSTER_KEY)

        assert await sealing.cluster_key_from_command(f"cat '{path}'") == CLUSTER_KEY

    @pytest.mark.parametrize(
        ("command", "words"),
        [
            ("", "is empty"),
            ("cat 'unfinished", "cannot be read"),
            ("/none/at-all", "cannot run /none/at-all"),
            (
                "sh -c 'echo vault is sealed >&2; exit 3'",
                "sh ended with 3 and no cluster key: vault is sealed",
            ),
            ("echo bayplan-cluster-key-1:oops", "what echo printed is no cluster key"),
            (r"printf '\377'", "what printf printed is no cluster key"),
            ("true", "what true printed is no cluster key"),
        ],
    )
    async def test_its_failure_is_told_in_words(self, command: str, words: str) -> None:
        with pytest.raises(ClusterKeyError, match=words) as caught:
            await sealing.cluster_key_from_command(command)

        assert "oops" not in str(caught.value)

    async def test_one_that_hangs_is_ended_with_all_it_started(self, tmp_path: Path) -> None:
        """Else the child would hold the pipe, and with it the manager that waits for its end."""
        program = tmp_path / "hangs.py"
        program.write_text("import os, time\nos.fork()\ntime.sleep(3600)\n")

        with pytest.raises(ClusterKeyError, match=r"gave no cluster key within 0.2 s"):
            await sealing.cluster_key_from_command(f"{sys.executable} {program}", timeout_s=0.2)
