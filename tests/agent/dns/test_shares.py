from __future__ import annotations

from agent.dns.shares import SHARE_S, WINDOW_S, Shares


class World:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.shares = Shares(lambda: self.now_s)

    def ask(self, client: str, took_s: float, *, is_forwarded: bool = False) -> bool:
        """Whether it has its turn."""
        began_s = self.shares.begin()
        if self.shares.is_used_up(client):
            return False
        self.now_s += took_s
        self.shares.end(client, began_s, is_forwarded=is_forwarded)
        return True


class TestShares:
    def test_who_floods_waits_for_the_next_second_and_the_others_do_not(self) -> None:
        world = World()
        assert world.ask("quiet", 0.001)
        turns = [world.ask("loud", 0.01) for _ in range(50)]

        assert 0 < sum(turns) <= SHARE_S / 0.01 + 2
        assert not turns[-1]
        assert world.ask("quiet", 0.001)
        world.now_s += WINDOW_S
        assert world.ask("loud", 0.01)

    def test_questions_for_others_count_though_they_are_answered_later(self) -> None:
        world = World()
        world.ask("quiet", 0.001)

        assert not all(world.ask("loud", 0.0, is_forwarded=True) for _ in range(1000))

    def test_who_is_alone_may_have_it_all(self) -> None:
        world = World()

        assert all(world.ask("loud", 0.01) for _ in range(90))
