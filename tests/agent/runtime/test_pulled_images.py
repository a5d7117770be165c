from __future__ import annotations

from pathlib import Path

from agent.runtime.pulled_images import PulledImages


class TestPulledImages:
    def test_outlives_the_agent_oldest_first(self, tmp_path: Path) -> None:
        times = iter([20.0, 10.0, 30.0])
        images = PulledImages(tmp_path / "pulled.json", lambda: next(times))
        for image_id in ("b", "a", "c"):
            images.add(image_id, f"web:{image_id}")
        images.discard("c")

        again = PulledImages(tmp_path / "pulled.json", lambda: 0.0)

        assert [image.id for image in again.oldest_first()] == ["a", "b"]
        assert "a" in again

    def test_keeps_every_name(self) -> None:
        images = PulledImages(None, lambda: 0.0)
        for name in ("web:1", "web:2", "web:1"):
            images.add("a", name)

        assert images.oldest_first()[0].names == ("web:1", "web:2")

    def test_a_damaged_file_claims_nothing(self, tmp_path: Path) -> None:
        for text in ("", "{", "7", '[{"id": "a"}]', '[{"id": "a", "names": ["b"], "pulled_s": "x"}]'):
            (tmp_path / "pulled.json").write_text(text)

            assert PulledImages(tmp_path / "pulled.json", lambda: 0.0).oldest_first() == []

    def test_a_file_that_cannot_be_written_stops_nothing(self, tmp_path: Path) -> None:
        images = PulledImages(tmp_path / "missing" / "pulled.json", lambda: 0.0)

        images.add("a", "web:1")

        assert "a" in images
