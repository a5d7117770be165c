"""What agents say in words of their own: short, on one line, and nothing that would steer a terminal or a page."""

from __future__ import annotations

WORDS_MAX = 500


def spoken(text: str) -> str:
    """`text` with everything unprintable as an escape, cut to `WORDS_MAX` characters before that."""
    if len(text) > WORDS_MAX:
        text = f"{text[: WORDS_MAX - 1]}…"
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
