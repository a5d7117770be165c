"""Addresses of managers, as users write them."""

from __future__ import annotations

MANAGER_PORT = 7400


def addresses(text: str) -> tuple[str, ...]:
    """A comma list of managers; a missing port is 7400."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(part if ":" in part.rpartition("]")[2] else f"{part}:{MANAGER_PORT}" for part in parts)
