"""Which images this agent brought to the host, so that it removes no other.

A small file. Docker offers no place for it: an image's labels are part of its content and cannot be
added later, and tags of our own would show in everybody's `docker images` and keep an image alive that
somebody wants to remove. A lost file costs disk space, never an image.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledImage:
    """An image that was not on the host before we pulled it. `pulled_s`: seconds since the Unix epoch."""

    id: str
    names: tuple[str, ...]  # What was pulled, fully qualified, with tag or digest.
    pulled_s: float


class PulledImages:
    """The record, in memory and in `file` (None: in memory only)."""

    def __init__(self, file: Path | None, wall_s: Callable[[], float]) -> None:
        self._file = file
        self._wall_s = wall_s
        self._images = {image.id: image for image in _read(file)}

    def oldest_first(self) -> list[PulledImage]:
        """What we pulled, oldest first."""
        return sorted(self._images.values(), key=lambda image: (image.pulled_s, image.id))

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._images

    def add(self, image_id: str, name: str) -> None:
        """Note that we pulled `name`."""
        known = self._images.get(image_id)
        names = (*known.names, name) if known else (name,)
        self._images[image_id] = PulledImage(
            id=image_id, names=tuple(dict.fromkeys(names)), pulled_s=self._wall_s()
        )
        self._write()

    def discard(self, image_id: str) -> None:
        """Forget an image that is gone."""
        if self._images.pop(image_id, None) is not None:
            self._write()

    def _write(self) -> None:
        if self._file is None:
            return
        text = json.dumps([asdict(image) for image in self.oldest_first()], indent=1)
        fresh = self._file.with_suffix(".new")
        try:
            fresh.write_text(text)
            fresh.replace(self._file)
        except OSError as error:
            # A full disk must not keep pods from starting.
            log.warning("pulled_images.not_written", file=str(self._file), error=str(error))


def _read(file: Path | None) -> list[PulledImage]:
    try:
        entries = json.loads(file.read_text()) if file else []
        return [
            PulledImage(id=entry["id"], names=tuple(entry["names"]), pulled_s=float(entry["pulled_s"]))
            for entry in entries
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, LookupError) as error:
        log.warning("pulled_images.not_read", file=str(file), error=str(error))
        return []
