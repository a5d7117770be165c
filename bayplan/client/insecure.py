"""Without encryption and identity: only where BAYPLAN_INSECURE_LOOPBACK says so, only to this host itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from bayplan.client.errors import ContextError

INSECURE_VARIABLE = "BAYPLAN_INSECURE_LOOPBACK"

_WORDS = {"": False, "0": False, "false": False, "1": True, "true": True}


def is_insecure(environ: Mapping[str, str] | None = None) -> bool:
    """Whether the environment asks for plain text. Raises ContextError."""
    environ = os.environ if environ is None else environ
    text = environ.get(INSECURE_VARIABLE, "")
    if text not in _WORDS:
        raise ContextError(f"{INSECURE_VARIABLE} is {text!r}, not one of 1, true, 0, false")
    return _WORDS[text]


def check_loopback(addresses: Sequence[str]) -> None:
    """Raises ContextError where one of them may be another host."""
    from bayplan.settings import is_loopback

    for address in addresses:
        if not is_loopback(address.rpartition(":")[0]):
            raise ContextError(
                f"{INSECURE_VARIABLE} does not go with {address}: without encryption only loopback addresses"
                " are allowed, such as 127.0.0.1"
            )
