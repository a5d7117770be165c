"""Two commands by turns of hundredths of a second, so that a machine whose speed changes is as fast for both.

    python - '{"commands": [[…], […]], "turn_s": 0.05, "turns": 40}'

Each runs while the other is stopped (SIGSTOP). After that each is interrupted (SIGINT), upon which wrk says what
it has done. Prints a list: what each said, and for how many seconds it was not stopped.

Of the standard library alone: it runs where the commands do, in a container.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

# Its connections stand by then.
START_S = 0.15
POLL_S = 0.002
ASLEEP = "S"


class Command:
    """A process that is stopped but for its turns."""

    def __init__(self, words: list[str]) -> None:
        self.ran_s = 0.0
        self._since_s = time.monotonic()
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def go_on(self) -> None:
        self._since_s = time.monotonic()
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)
        self.ran_s += time.monotonic() - self._since_s

    def end(self) -> str:
        """What it said."""
        self.go_on()
        # The signal goes to the first thread, which waits for it, if that has nothing else to do; else to any.
        while self._process.poll() is None and self._state() != ASLEEP:
            time.sleep(POLL_S)
        self._process.send_signal(signal.SIGINT)
        said, _ = self._process.communicate()
        self.ran_s += time.monotonic() - self._since_s
        return said

    def _state(self) -> str:
        """Of its first thread: the field after the name in parentheses, proc(5)."""
        return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def main() -> None:
    """See the module's docstring."""
    order = json.loads(sys.argv[1])
    commands = []
    for words in order["commands"]:
        commands.append(Command(words))
        time.sleep(START_S)
        commands[-1].stop()
    for turn in range(order["turns"]):
        # Whoever is first in one pair is last in the next.
        for command in reversed(commands) if turn % 2 else commands:
            command.go_on()
            time.sleep(order["turn_s"])
            command.stop()
    print(json.dumps([{"said": command.end(), "ran_s": command.ran_s} for command in commands]))


if __name__ == "__main__":
    main()
