"""Two commands by turns of hundredths of a second, so that a machine whose speed changes is as fast for both.

    python - '{"commands": [[…], […]], "turn_s": 0.05, "turns": 40}'

Each runs while the other is stopped (SIGSTOP). After that each is interrupted (SIGINT), upon which wrk says what
it has done. Prints a list: what each said, and for how many seconds it was not stopped.

Of the standard library alone: it runs where the commands do, in a container.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time

# Its connections stand by then.
START_S = 0.15
AGAIN_AFTER_S = 0.05


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
        while True:
            # Again: any thread may take the signal, but only the first one sleeps until it comes.
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                said, _ = self._process.communicate(timeout=AGAIN_AFTER_S)
                self.ran_s += time.monotonic() - self._since_s
                return said


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
