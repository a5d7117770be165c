"""What the leader said, word by word, where an agent that is killed leaves it for the next.

The tables on disk are up to two seconds old, and without certificates' keys. An agent that started from them would
set a proxy that runs back to what was, and take its certificates away, until a manager speaks. So each word is
noted here before it is acted on: on the tmpfs, since HAProxy's configuration lies there too. After a reboot both are
gone, and the disk's tables are the best there is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import structlog

from bayplan.identity.credentials import write_private
from bayplan.v1 import agent_link_pb2 as pb

log = structlog.get_logger(__name__)

FILE_NAME = "told.log"
_LENGTH_BYTES = 4
# Written anew when what was added is this much, and as much as the whole: so that it costs little, and stays small.
ADDED_MAX_BYTES = 2**20


class ToldLog:
    """In the agent's run directory. What cannot be written leaves no log: one with a gap would be worse."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._whole_bytes = self._added_bytes = 0
        self._is_kept = False  # Whether the file holds all that was told.
        self.is_lost = False  # It could not be written: `write` tries again.

    def read(self) -> list[pb.ManagerMessage]:
        """From a whole on; empty where there is none that can be read."""
        try:
            left = self._path.read_bytes()
            messages = []
            while left:
                end = _LENGTH_BYTES + int.from_bytes(left[:_LENGTH_BYTES])
                if len(left) < end:
                    break  # The agent was killed while it wrote: it had not acted on it yet.
                messages.append(pb.ManagerMessage.FromString(left[_LENGTH_BYTES:end]))
                left = left[end:]
        except (OSError, ValueError):  # DecodeError is a ValueError.
            return []
        return messages

    def add(self, message: pb.ManagerMessage) -> bool:
        """Note one more word; False: write the whole instead."""
        if self.is_lost:
            return True
        if not self._is_kept or self._added_bytes > ADDED_MAX_BYTES + self._whole_bytes:
            return False
        content = _framed(message)
        self._added_bytes += len(content)
        try:
            with self._path.open("ab") as file:
                file.write(content)
        except OSError as error:
            self._give_up(error)
        return True

    def write(self, whole: Iterable[pb.ManagerMessage]) -> None:
        """From now on it begins with this."""
        content = b"".join(map(_framed, whole))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_private(self._path, content)
        except OSError as error:
            self._give_up(error)
            return
        self._whole_bytes, self._added_bytes = len(content), 0
        self._is_kept, self.is_lost = True, False

    def _give_up(self, error: OSError) -> None:
        if not self.is_lost:
            log.warning("told_log.not_written", path=str(self._path), error=str(error))
        self._is_kept, self.is_lost = False, True
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def _framed(message: pb.ManagerMessage) -> bytes:
    content = message.SerializeToString()
    return len(content).to_bytes(_LENGTH_BYTES) + content
