"""Whether a store can be the one that an agent was told of."""

from __future__ import annotations

import pytest

from manager.history import TERMS_MAX, History, decode_history
from manager.store.records import DamagedRecordError


def history(*epochs: int) -> History:
    """One commit after the other, each in the epoch given."""
    found = History()
    for epoch in epochs:
        found = found.next(epoch)
    return found


class TestHistory:
    def test_has_every_commit_it_grew_by(self) -> None:
        found = history(5, 5, 9, 9, 9, 14)
        for epoch, sequence in ((5, 1), (5, 2), (9, 3), (9, 5), (14, 6)):
            assert found.lacks(epoch, sequence) == ""

    def test_lacks_what_was_committed_after_the_backup(self) -> None:
        backup = history(5, 5)
        assert "commit 4 of epoch 5" in backup.next(20).lacks(5, 4)

    def test_lacks_a_term_that_the_backup_never_saw(self) -> None:
        backup = history(5, 5)
        assert "epoch 9" in backup.next(20).next(25).lacks(9, 3)

    def test_lacks_a_later_epoch(self) -> None:
        assert "epoch 9" in history(5).lacks(9, 1)

    def test_lacks_everything_when_it_is_empty(self) -> None:
        assert History().lacks(5, 1)

    def test_believes_who_was_away_for_longer_than_it_remembers(self) -> None:
        found = history(*range(10, 10 + TERMS_MAX + 5))
        assert found.lacks(3, 1) == ""
        assert len(found.earlier) == TERMS_MAX

    def test_survives_the_store(self) -> None:
        found = history(5, 5, 9)
        assert decode_history(found.encode()) == found
        assert decode_history(None) == History()

    @pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"epoch": 1, "sequence": "x"}', b"\xff"])
    def test_is_not_made_up_from_damage(self, value: bytes) -> None:
        with pytest.raises(DamagedRecordError):
            decode_history(value)
