from __future__ import annotations

from bayplan.model.names import PodId
from manager.touched import Changes, Touched

POD = PodId("u", 0, 1)
PLACE = ("Service", "shop", "web")


class TestTouched:
    def test_gives_each_once_and_begins_anew(self) -> None:
        touched = Touched()
        for _ in range(3):
            touched.pod(POD)
            touched.document(PLACE)

        assert touched.take() == Changes(documents=frozenset({PLACE}), pods=frozenset({POD}))
        assert touched.take() == Changes()
        assert not touched

    def test_calls_when_there_is_something_after_there_was_nothing(self) -> None:
        calls: list[int] = []
        touched = Touched(on_first=lambda: calls.append(1))
        touched.pod(POD)
        touched.document(PLACE)
        assert len(calls) == 1
        touched.take()
        touched.document(PLACE)

        assert len(calls) == 2
