from __future__ import annotations

from agent.dns.ready import ENTRIES_MAX, REPLY_BYTES_MAX, ReadyReplies


def a_wire(number: int = 1, text: bytes = b"question") -> bytes:
    return number.to_bytes(2) + text


class TestReadyReplies:
    def test_are_for_whoever_asks_the_same_under_any_id(self) -> None:
        ready = ReadyReplies()
        ready.put(a_wire(1), a_wire(1, b"answer"), now_s=0, until_s=10)

        assert ready.get(a_wire(513), 5) == a_wire(513, b"answer")
        assert ready.get(a_wire(1, b"another"), 5) is None

    def test_end_in_time(self) -> None:
        ready = ReadyReplies()
        ready.put(a_wire(), a_wire(), now_s=0, until_s=10)

        assert ready.get(a_wire(), 10) is None

    def test_that_must_not_be_kept_are_not(self) -> None:
        ready = ReadyReplies()
        ready.put(a_wire(), a_wire(), now_s=5, until_s=5)
        ready.put(a_wire(2, b"large"), bytes(REPLY_BYTES_MAX + 1), now_s=0, until_s=10)

        assert len(ready) == 0

    def test_take_turns_once_all_of_them_were_made(self) -> None:
        ready = ReadyReplies()
        for turn in range(3):
            assert ready.get(a_wire(), 0) is None
            assert ready.turn(a_wire()) == turn
            ready.put(a_wire(), a_wire(1, b"%d" % turn), now_s=0, until_s=10, turns=3)

        assert [ready.get(a_wire(), 0) for _ in range(4)] == [
            a_wire(1, each) for each in (b"0", b"1", b"2", b"0")
        ]

    def test_are_bounded(self) -> None:
        """Somebody asks for names that nobody has, one after another."""
        ready = ReadyReplies()
        for number in range(ENTRIES_MAX + 100):
            ready.put(a_wire(1, b"%d" % number), b"", now_s=0, until_s=10)

        assert len(ready) == ENTRIES_MAX
        assert ready.get(a_wire(1, b"0"), 0) is None
        assert ready.get(a_wire(1, b"%d" % ENTRIES_MAX), 0) is not None

    def test_are_all_dropped_at_once(self) -> None:
        ready = ReadyReplies()
        ready.put(a_wire(), a_wire(), now_s=0, until_s=10)
        ready.clear()

        assert ready.get(a_wire(), 0) is None
