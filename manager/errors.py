"""What the state of the cluster forbids, to whoever asks for it."""

from __future__ import annotations


class RefusedError(Exception):
    """The state of the cluster forbids it; the text says what to do."""
