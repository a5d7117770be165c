"""How a command ends other than well."""

from __future__ import annotations


class CommandError(Exception):
    """Tell the user `message` on stderr (nothing if empty) and end with `exit_code`."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
