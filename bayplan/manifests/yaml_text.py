"""YAML or JSON text → the documents in it, with the place of every value.

Built from the parser's events, without recursion and with limits, so that a hostile file is refused in
a moment: nesting, size, unfolding aliases, duplicate keys, foreign tags. PyYAML's own composer recurses
in C (10,000 brackets end the process), takes duplicate keys silently and unfolds any alias.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from bayplan.manifests.errors import Located, ManifestError
from bayplan.manifests.places import Place, Position
from bayplan.manifests.scalars import ScalarError, scalar_of
from bayplan.resources.problems import quote

# A secret has up to 1 MiB of data, a third more as base64.
TEXT_MAX_BYTES = 2**21
_DEPTH_MAX = 64
_DOCUMENTS_MAX = 1_000
_PROBLEMS_MAX = 20
# A megabyte of real manifests has some 50,000 values; aliases count as what they unfold to.
_VALUES_MAX = 100_000

# What YAML allows; libyaml says of the rest neither line nor column.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MERGE = "<<"
_TAGS_OF_KIND = {
    "map": ("!", "tag:yaml.org,2002:map"),
    "seq": ("!", "tag:yaml.org,2002:seq"),
    "text": ("!", "tag:yaml.org,2002:str"),
}


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """One document: its JSON data and where each value stands."""

    data: Any
    place: Place


def read_yaml(text: bytes | str, *, source: str) -> list[YamlDocument]:
    """Every document in `text`; empty ones are left out.

    Args:
        text: YAML or JSON, UTF-8.
        source: the file's name in messages.
    Raises ManifestError, never anything else.
    """
    decoded = _decode(text, source)
    reader = _Reader(source)
    try:
        for event in yaml.parse(decoded, Loader=yaml.CSafeLoader):
            reader.feed(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = _position(mark) if mark else (1, 1)
        raise ManifestError([*reader.found, reader.located(at, _syntax_words(error))]) from None
    except yaml.YAMLError as error:
        raise ManifestError([*reader.found, reader.located((1, 1), f"is not YAML: {error}")]) from None
    if reader.found:
        raise ManifestError(reader.found)
    return reader.documents


def _decode(text: bytes | str, source: str) -> str:
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(raw) > TEXT_MAX_BYTES:
        message = f"is larger than {TEXT_MAX_BYTES // 2**20} MiB, and so no manifest"
        raise ManifestError([Located(source=source, message=message)])
    try:
        decoded = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # error.object is without the byte order mark, as the columns are.
        before = error.object[: error.start].decode("utf-8", "replace")
        message = f"byte 0x{error.object[error.start]:02x} is not UTF-8 text"
        line, column = _end_of(before)
        raise ManifestError([Located(source=source, line=line, column=column, message=message)]) from None
    bad = _FORBIDDEN.search(decoded)
    if bad is not None:
        line, column = _end_of(decoded[: bad.start()])
        message = f"the character U+{ord(bad[0]):04X} is not allowed in YAML"
        raise ManifestError([Located(source=source, line=line, column=column, message=message)])
    return decoded


def _end_of(text: str) -> Position:
    return text.count("\n") + 1, len(text) - text.rfind("\n")


def _position(mark: Any) -> Position:
    return mark.line + 1, mark.column + 1


def _syntax_words(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "is not YAML"
    if "found character '\\t'" in problem or "that cannot start any token" in problem:
        problem += "; indent with spaces, not tabs, and put text that begins with @ or ` in quotes"
    return f"{problem} ({error.context})" if error.context else problem


@dataclass(slots=True)
class _Open:
    """A mapping or list that is being read."""

    data: dict[str, Any] | list[Any]
    place: Place
    anchor: str | None
    values_before: int
    deepest: int
    key: str | None = None  # Of the value that comes next.
    key_at: Position | None = None
    merged: list[tuple[Any, Place]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Anchored:
    data: Any
    place: Place
    values: int  # What it unfolds to.
    depth: int


class _Reader:
    """Folds the parser's events into documents."""

    def __init__(self, source: str) -> None:
        self.documents: list[YamlDocument] = []
        self.found: list[Located] = []
        self._source = source
        self._open: list[_Open] = []
        self._anchors: dict[str, _Anchored] = {}
        self._values = 0
        self._started = 0

    def feed(self, event: yaml.Event) -> None:
        """Take the next event. Raises ManifestError where reading on makes no sense."""
        at = _position(event.start_mark)
        match event:
            case yaml.ScalarEvent():
                self._scalar(event, at)
            case yaml.MappingStartEvent():
                self._begin(event, {}, Place(at, fields={}), "map")
            case yaml.SequenceStartEvent():
                self._begin(event, [], Place(at, items=[]), "seq")
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._end()
            case yaml.AliasEvent():
                self._alias(event, at)
            case yaml.DocumentStartEvent():
                self._anchors.clear()
                self._started += 1
                if self._started > _DOCUMENTS_MAX:
                    raise self._stop(at, f"more than {_DOCUMENTS_MAX} documents")

    def located(self, at: Position, message: str) -> Located:
        return Located(source=self._source, line=at[0], column=at[1], message=message)

    def _stop(self, at: Position, message: str) -> ManifestError:
        return ManifestError([*self.found, self.located(at, message)])

    def _note(self, at: Position, message: str) -> None:
        """Read on after this problem, to find the others, unless there are too many of them."""
        if len(self.found) == _PROBLEMS_MAX:
            raise self._stop(at, message)
        self.found.append(self.located(at, message))

    def _count(self, values: int, at: Position) -> None:
        self._values += values
        if self._values > _VALUES_MAX:
            raise self._stop(at, f"more than {_VALUES_MAX} values, aliases unfolded")

    def _check_tag(self, tag: str | None, kind: str, at: Position) -> None:
        if tag is not None and tag not in _TAGS_OF_KIND[kind]:
            # Not named, nor is an alias below: a password that nobody quoted may begin with ! or *.
            raise self._stop(at, "this tag is not allowed; put text that begins with ! in quotes")

    def _scalar(self, event: yaml.ScalarEvent, at: Position) -> None:
        text: str = event.value
        is_plain = event.implicit[0]
        if not is_plain:
            self._check_tag(event.tag, "text", at)
        parent = self._open[-1] if self._open else None
        if parent is not None and isinstance(parent.data, dict) and parent.key is None:
            self._key(parent, text, at, is_plain=is_plain)
            return
        self._count(1, at)
        value: Any = text
        if is_plain:
            try:
                value = scalar_of(text)
            except ScalarError as error:
                self._note(at, str(error))
        place = Place(at)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchored(value, place, values=1, depth=0)
        self._put(value, place)

    def _key(self, mapping: _Open, text: str, at: Position, *, is_plain: bool) -> None:
        if is_plain and text in ("", "~"):
            raise self._stop(at, "a key is missing before the colon")
        mapping.key, mapping.key_at = text, at
        assert mapping.place.fields is not None
        earlier = (
            mapping.merged[0][1] if text == _MERGE and mapping.merged else mapping.place.fields.get(text)
        )
        if earlier is not None and earlier.key_at is not None:
            line, column = earlier.key_at
            self._note(at, f"the key {quote(text)} is there already, at {line}:{column}")

    def _begin(self, event: yaml.CollectionStartEvent, data: Any, place: Place, kind: str) -> None:
        if self._open and isinstance(self._open[-1].data, dict) and self._open[-1].key is None:
            raise self._stop(place.at, "a key must be text")
        self._check_tag(event.tag, kind, place.at)
        depth = len(self._open) + 1
        if depth > _DEPTH_MAX:
            raise self._stop(place.at, f"nested more than {_DEPTH_MAX} levels deep")
        self._count(1, place.at)
        self._open.append(
            _Open(data=data, place=place, anchor=event.anchor, values_before=self._values - 1, deepest=depth)
        )

    def _end(self) -> None:
        done = self._open.pop()
        if isinstance(done.data, dict):
            self._merge(done, done.data)
        if done.anchor is not None:
            self._anchors[done.anchor] = _Anchored(
                done.data,
                done.place,
                values=self._values - done.values_before,
                depth=done.deepest - len(self._open),
            )
        if self._open:
            self._open[-1].deepest = max(self._open[-1].deepest, done.deepest)
        self._put(done.data, done.place)

    def _alias(self, event: yaml.AliasEvent, at: Position) -> None:
        name = event.anchor or ""
        if self._open and isinstance(self._open[-1].data, dict) and self._open[-1].key is None:
            raise self._stop(at, "a key must be text, not an alias")
        if any(one.anchor == name for one in self._open):
            raise self._stop(at, f"the alias {quote(name)} is inside itself")
        target = self._anchors.get(name)
        if target is None:
            words = "no anchor stands before this alias; put text that begins with * in quotes"
            raise self._stop(at, words)
        self._count(target.values, at)
        depth = len(self._open) + target.depth
        if depth > _DEPTH_MAX:
            raise self._stop(at, f"nested more than {_DEPTH_MAX} levels deep, aliases unfolded")
        if self._open:
            self._open[-1].deepest = max(self._open[-1].deepest, depth)
        here = Place(target.place.at, fields=target.place.fields, items=target.place.items)
        self._put(target.data, here)

    def _put(self, value: Any, place: Place) -> None:
        if not self._open:
            if value is None:
                return  # An empty document, as between two "---".
            self.documents.append(YamlDocument(value, place))
            return
        parent = self._open[-1]
        if isinstance(parent.data, list):
            assert parent.place.items is not None
            parent.data.append(value)
            parent.place.items.append(place)
            return
        assert parent.key is not None
        assert parent.place.fields is not None
        place.key_at = parent.key_at
        if parent.key == _MERGE:
            parent.merged.append((value, place))
        elif parent.key not in parent.data:
            parent.data[parent.key] = value
            parent.place.fields[parent.key] = place
        parent.key = None

    def _merge(self, done: _Open, data: dict[str, Any]) -> None:
        """YAML's merge key: `<<: *other` adds what is not said here."""
        for value, place in done.merged:
            for one, one_place in _mappings_in(value, place):
                if not isinstance(one, dict):
                    raise self._stop(place.key_at or place.at, "<< takes a mapping, or a list of mappings")
                assert one_place.fields is not None
                assert done.place.fields is not None
                self._count(len(one), place.at)
                for key, item in one.items():
                    if key not in data:
                        data[key] = item
                        done.place.fields[key] = one_place.fields[key]


def _mappings_in(value: Any, place: Place) -> Iterator[tuple[Any, Place]]:
    if isinstance(value, list) and place.items is not None:
        yield from zip(value, place.items, strict=True)
    else:
        yield value, place
