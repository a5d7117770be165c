from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from manager.access.backup import FILE, Backup, read_backup, write_backup
from manager.access.records import CaRecord, RootRecord
from manager.store.sealing import ClusterKey
from tests.manager.access.world import an_identity

KEY = ClusterKey.generate()
BACKUP = Backup(
    ca=CaRecord(roots=(RootRecord(certificate_pem="c", key_pem="swordfish", since_ms=1),), cross_pem="x"),
    identities=(an_identity("n1", generation=3, is_revoked=True), an_identity("anna", kind="user", role=3)),
)


class TestBackup:
    def test_is_read_back(self, tmp_path: Path) -> None:
        write_backup(tmp_path, BACKUP, KEY)

        assert read_backup(tmp_path, [KEY]) == BACKUP

    def test_is_replaced(self, tmp_path: Path) -> None:
        write_backup(tmp_path, BACKUP, KEY)
        write_backup(tmp_path, Backup(), KEY)

        assert read_backup(tmp_path, [KEY]) == Backup()

    def test_shows_nothing_to_who_finds_the_file(self, tmp_path: Path) -> None:
        write_backup(tmp_path, BACKUP, KEY)
        content = (tmp_path / FILE).read_bytes()

        assert b"swordfish" not in content
        assert b"anna" not in content
        assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600

    def test_where_there_is_none_is_empty(self, tmp_path: Path) -> None:
        assert read_backup(tmp_path, [KEY]) == Backup()

    def test_either_key_of_a_rotation_opens_it(self, tmp_path: Path) -> None:
        """The manager was stopped in between."""
        write_backup(tmp_path, BACKUP, KEY)

        assert read_backup(tmp_path, [ClusterKey.generate(), KEY]) == BACKUP

    def test_by_a_wrong_key_is_empty_and_said(self, tmp_path: Path) -> None:
        write_backup(tmp_path, BACKUP, KEY)
        other = ClusterKey.generate()
        with structlog.testing.capture_logs() as logs:
            assert read_backup(tmp_path, [other]) == Backup()

        assert [(entry["event"], entry["key"]) for entry in logs] == [("identities_copy.not_read", other.id)]

    @pytest.mark.parametrize("at", [0, 5, 40, -1])
    def test_a_changed_one_is_empty_and_said(self, tmp_path: Path, at: int) -> None:
        """Who may write the file cannot make up a CA."""
        write_backup(tmp_path, BACKUP, KEY)
        content = bytearray((tmp_path / FILE).read_bytes())
        content[at] ^= 1
        (tmp_path / FILE).write_bytes(content)
        with structlog.testing.capture_logs() as logs:
            assert read_backup(tmp_path, [KEY]) == Backup()

        assert [entry["log_level"] for entry in logs] == ["warning"]

    @pytest.mark.parametrize("content", [b"", b"{}", b"\xb1", b"\xb1" + bytes(100)])
    def test_junk_is_empty_and_said(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / FILE).write_bytes(content)
        with structlog.testing.capture_logs() as logs:
            assert read_backup(tmp_path, [KEY]) == Backup()

        assert logs
